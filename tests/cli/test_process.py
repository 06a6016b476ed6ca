"""A command as a process: pipes that close, disks that are full, signals, and what is printed."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from safetensors.torch import save_file

from dkm_deploy._support.atomic_files import atomic_path
from dkm_deploy.cli import COMMANDS, main
from dkm_deploy.conversion import registry
from tests.command import fails, run
from tests.models import small_net


def test_a_reader_that_has_gone_changes_no_exit_code(tmp_path, monkeypatch, capsys):
    save_file(small_net().state_dict(), tmp_path / "m.safetensors")
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert run("inspect", tmp_path / "m.safetensors") == 0
        monkeypatch.undo()
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_output_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, capsys):
    save_file(small_net().state_dict(), tmp_path / "m.safetensors")
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert run("inspect", tmp_path / "m.safetensors") == 2
        monkeypatch.undo()
    told = "dkm-deploy: error: standard output: No space left on device; free some"
    err = capsys.readouterr().err
    assert err.startswith(told)
    assert err.count("\n") == 1


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_a_signal_leaves_no_temporary_folder(tmp_path, monkeypatch, capsys, name, code):
    file = tmp_path / "m.safetensors"
    save_file(small_net().state_dict(), file)
    if signal.getsignal(getattr(signal, name)) is signal.SIG_IGN:  # under nohup
        pytest.skip(f"{name} is ignored here")
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}

    def signalled(_):
        with atomic_path(tmp_path / "out") as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), getattr(signal, name))
            raise AssertionError("went on")

    monkeypatch.setattr(registry, "read_palettes", signalled)
    assert run("inspect", file) == code
    assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [file]
    assert {number: signal.getsignal(number) for number in before} == before


@pytest.mark.parametrize("arguments", [["fly"], ["convert"], ["palettize", "m", "--bits", "x"]])
def test_wrong_use_is_one_line(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    out, err = capsys.readouterr()
    assert (stop.value.code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("dkm-deploy: error: ")


def test_nothing_from_a_name_is_obeyed_by_a_terminal(tmp_path, capsys):
    name = "\x1b[31mred[bold]\u202e.safetensors"
    save_file({"w[red]\x1b]0;title\x07": small_net().head.weight.detach()}, tmp_path / name)
    assert run("inspect", tmp_path / name) == 0
    fails(capsys, ["inspect", tmp_path / f"gone{name}"], r"gone\x1b[31mred[bold]\u202e.saf")
    assert run("inspect", tmp_path / name) == 0
    out = capsys.readouterr().out
    assert r"w[red]\x1b]0;title\x07" in out
    assert "\x1b" not in out
    assert "\u202e" not in out


def _bad_paths(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    return ["none", "n" * 300, "file/below", "link", "pipe", "."]


# Of each command, with a bad path wherever it reads or writes one.
READS = {
    "convert": ["convert", "{}.pt2", "-o", "{out}.onnx"],
    "palettize": ["palettize", "{}.onnx", "--bits", "2", "-o", "{out}.onnx"],
    "plan": ["plan", "{}.onnx", "--budget", "1KB", "--calibration", "{}", "-o", "{out}.toml"],
    "validate": ["validate", "{}.onnx", "--golden", "{}", "--json", "{out}.json"],
    "golden": ["golden", "{out}", "--model", "{}.pt2", "--weights", "{}", "--inputs", "{}"],
    "compare": ["compare", "{}", "--json", "{out}.json"],
    "inspect": ["inspect", "{}.onnx"],
}
WRITES = {
    "convert": ["convert", "tests.models:small_net", "--input", "1x3x8x8", "-o", "{}.onnx"],
    "palettize": [
        *["palettize", "tests.models:small_net", "--weights", "{plain}", "--bits", "2"],
        *["-o", "{}.safetensors"],
    ],
    "plan": ["plan", "m:n", "--budget", "1KB", "--calibration", "none", "-o", "{}.toml"],
    "validate": ["validate", "none.onnx", "--golden", "none", "--html", "{}.html"],
    "golden": ["golden", "{}", "--model", "m:n", "--weights", "none", "--inputs", "none"],
    "compare": ["compare", "none", "--html", "{}.html"],
    "demo": ["demo", "--out", "{}"],
}


def test_every_command_is_given_bad_paths():
    assert {*READS, *WRITES} == set(COMMANDS)


@pytest.mark.parametrize("command", READS)
def test_a_path_that_cannot_be_read_is_one_line(tmp_path, capsys, command):
    for path in _bad_paths(tmp_path):
        before = sorted(tmp_path.rglob("*"))
        filled = [a.format(tmp_path / path, out=tmp_path / "out") for a in READS[command]]
        fails(capsys, filled, "")
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("command", WRITES)
def test_a_path_that_cannot_be_written_is_one_line(tmp_path, capsys, command):
    plain = tmp_path / "plain.safetensors"
    save_file(small_net().state_dict(), plain)
    (tmp_path / "file").write_text("x")
    for path in ("n" * 300, "file/below"):
        before = sorted(tmp_path.rglob("*"))
        filled = [a.format(tmp_path / path, plain=plain) for a in WRITES[command]]
        fails(capsys, filled, ": cannot ")
        assert sorted(tmp_path.rglob("*")) == before
