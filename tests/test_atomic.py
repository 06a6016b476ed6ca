"""Files that are written whole or not at all, with the files that belong to them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dkm_deploy.atomic import written_whole
from dkm_deploy.errors import DkmError, OutputExistsError


def write(path: Path, text: str, *, companion: bool = True, force: bool = False) -> None:
    with written_whole(path, force=force) as temporary:
        temporary.write_text(text)
        if companion:
            temporary.with_name(f"{temporary.name}.data").write_text(f"data of {text}")


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


NEW = {"m.onnx": "new", "m.onnx.data": "data of new"}
OLD = {"m.onnx": "old", "m.onnx.data": "data of old"}


def test_companions_come_with_the_file(tmp_path):
    write(tmp_path / "m.onnx", "new")
    assert content(tmp_path) == NEW


def test_force_replaces_both(tmp_path):
    write(tmp_path / "m.onnx", "old")
    with pytest.raises(OutputExistsError):
        write(tmp_path / "m.onnx", "new")
    assert content(tmp_path) == OLD
    write(tmp_path / "m.onnx", "new", force=True)
    assert content(tmp_path) == NEW


def test_a_companion_of_others_is_not_replaced(tmp_path):
    (tmp_path / "m.onnx.data").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"m\.onnx\.data: already exists"):
        write(tmp_path / "m.onnx", "new")
    assert content(tmp_path) == {"m.onnx.data": "mine"}


def test_an_error_in_the_block_leaves_all_as_it_was(tmp_path):
    write(tmp_path / "m.onnx", "old")
    with pytest.raises(UnicodeEncodeError):
        write(tmp_path / "m.onnx", "\ud800", force=True)
    assert content(tmp_path) == OLD


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_an_error_while_files_are_moved_leaves_all_as_it_was(tmp_path, monkeypatch, step):
    write(tmp_path / "m.onnx", "old")
    calls = []

    def failing_once(move):
        def moved(source, target, **how):
            calls.append(target)
            if len(calls) == step:
                raise OSError(errno.ENOSPC, "no space")
            return move(source, target, **how)

        return moved

    monkeypatch.setattr(Path, "rename", failing_once(Path.rename))
    monkeypatch.setattr(os, "link", failing_once(os.link))
    with pytest.raises(DkmError, match="cannot be written: no space"):
        write(tmp_path / "m.onnx", "new", force=True)
    assert content(tmp_path) == OLD


KILLED = """
import os, sys
from pathlib import Path
from tests.test_atomic import write

def dying(move, left):
    def moved(source, target, **how):
        if not left[0]:
            os._exit(0)
        left[0] -= 1
        return move(source, target, **how)
    return moved

for step in range(5):
    folder = Path(sys.argv[1]) / str(step)
    write(folder / "m.onnx", "old")
    left = [step]
    if not os.fork():
        Path.rename, os.link = dying(Path.rename, left), dying(os.link, left)
        write(folder / "m.onnx", "new", force=True)
        os._exit(0)
    os.wait()
"""


def test_a_killed_process_leaves_one_pair_or_none(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=True)
    found = []
    for step in range(5):
        files = [path for path in (tmp_path / str(step)).iterdir() if path.is_file()]
        state = {path.name: path.read_text() for path in files}
        assert "m.onnx" not in state or state in (OLD, NEW)
        found.append(state.get("m.onnx"))
        kept = {p.name: p.read_text() for p in (tmp_path / str(step)).glob(".m.onnx.*/.old/*")}
        assert (
            state == NEW
            or {**state, **kept}
            == {
                **OLD,
            }
            or kept == OLD
        )
    assert found == ["old", None, None, None, "new"]


@pytest.mark.parametrize("old_is_folder", [True, False])
def test_a_file_and_a_folder_do_not_replace_each_other(tmp_path, old_is_folder):
    path = tmp_path / "m"
    (path / "inside").mkdir(parents=True) if old_is_folder else path.write_text("old")
    with (
        pytest.raises(DkmError, match="do not replace each other"),
        written_whole(path, force=True) as temporary,
    ):
        temporary.write_text("new") if old_is_folder else temporary.mkdir()
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]
    assert path.is_dir() == old_is_folder
