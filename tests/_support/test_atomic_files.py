"""Files that are written whole or not at all, with the files that belong to them."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dkm_deploy._support.atomic_files import atomic_path, set_aside
from dkm_deploy.errors import DkmError, OutputExistsError, UnwritableFileError


def write(path: Path, text: str, *, companion: bool = True, force: bool = False) -> None:
    with atomic_path(path, force=force) as temporary:
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
from tests._support.test_atomic_files import write

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
        pytest.raises(DkmError, match="a file cannot replace a folder"),
        atomic_path(path, force=True) as temporary,
    ):
        temporary.write_text("new") if old_is_folder else temporary.mkdir()
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]
    assert path.is_dir() == old_is_folder


def test_what_appears_at_the_last_moment_is_not_replaced(tmp_path, monkeypatch):
    link = os.link

    def late(source, target, **how):
        Path(target).write_text("theirs")
        link(source, target, **how)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(OutputExistsError, match="already exists"):
        write(tmp_path / "m.onnx", "new", companion=False)
    assert content(tmp_path) == {"m.onnx": "theirs"}


def test_a_file_system_without_links_is_written_to(tmp_path, monkeypatch):
    def unknown(*_, **__):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", unknown)
    write(tmp_path / "m.onnx", "old")
    write(tmp_path / "m.onnx", "new", force=True)
    assert content(tmp_path) == NEW


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    resource = pytest.importorskip("resource")
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, most[1]))
    try:
        with pytest.raises(UnwritableFileError, match="cannot be written: File too large$"):
            write(tmp_path / "made" / "m.onnx", "n" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["n" * 255, "\u6a21" * 85])
def test_the_longest_name_can_be_written(tmp_path, name):
    write(tmp_path / name, "new", companion=False)
    assert content(tmp_path) == {name: "new"}


@pytest.mark.parametrize("name", ["n" * 256, "a\0b", ".", "..", "link/m"])
def test_names_that_no_file_can_have_are_refused(tmp_path, name):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DkmError):
        write(tmp_path / name, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_a_link_that_leads_nowhere_is_not_replaced_without_force(tmp_path):
    (tmp_path / "m").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputExistsError):
        write(tmp_path / "m", "new", companion=False)
    assert (tmp_path / "m").is_symlink()


def test_what_cannot_be_moved_back_is_kept(tmp_path, monkeypatch):
    write(tmp_path / "m.onnx", "old", companion=False)

    def failing(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "link", failing)
    with pytest.raises(DkmError, match="the old content is now in"):
        write(tmp_path / "m.onnx", "new", force=True)
    (kept,) = tmp_path.glob(".m.onnx.*/.old/m.onnx")
    assert kept.read_text() == "old"


@pytest.mark.parametrize("fails", [True, False])
def test_what_is_set_aside_comes_back_if_the_rest_fails(tmp_path, fails):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    with contextlib.suppress(KeyError), set_aside(tmp_path / "out"):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "new").write_text("new")
        if fails:
            raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["old" if fails else "new"]


@pytest.mark.parametrize("given", ["m.onnx", "below/m.onnx", "{tmp}/m.onnx"])
@pytest.mark.parametrize("name", ["m.onnx", "m.onnx.data"])
def test_an_error_tells_the_name_that_a_file_was_to_get(tmp_path, monkeypatch, given, name):
    monkeypatch.chdir(tmp_path)
    path = Path(given.format(tmp=tmp_path))

    with pytest.raises(OutputExistsError) as caught, atomic_path(path) as temporary:
        raise OutputExistsError(f"{temporary.with_name(name)}: is wrong")

    assert str(caught.value) == f"{path.with_name(name)}: is wrong"
