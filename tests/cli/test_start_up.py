"""A command imports what it needs: `--help` no torch and no other command."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from dkm_deploy.cli import COMMANDS, build_parser

# What takes long to import, or much memory.
HEAVY = {"torch", "numpy", "onnx", "onnxruntime", "coremltools", "safetensors", "rich", "asyncio"}

# Runs command lines, one after the other, and prints all modules that are imported then.
CODE = """
import contextlib, json, sys
from dkm_deploy.cli import main
for line in json.loads(sys.argv[1]):
    with contextlib.suppress(SystemExit):
        main(line)
print(json.dumps(list(sys.modules)))
"""


def _imported(*lines):
    """Names of the modules that these command lines import in a process of their own."""
    command = [sys.executable, "-c", CODE, json.dumps(lines)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("flag", ["--version", "--help"])
def test_the_list_of_commands_imports_none_of_them(flag):
    imported = _imported([flag])
    assert imported & HEAVY == set()
    assert imported & {f"dkm_deploy.cli.{name}" for name in COMMANDS} == set()


def test_the_help_of_every_command_imports_nothing_that_it_does_not_print():
    imported = _imported(*([name, "--help"] for name in COMMANDS))
    assert imported >= {f"dkm_deploy.cli.{name}" for name in COMMANDS}
    assert imported & HEAVY == set()


def test_files_and_reports_are_shown_without_torch(folder):
    files = [f"{folder}/model.onnx", f"{folder}/model.mlpackage"]
    imported = _imported(*(["inspect", file] for file in files), ["compare", f"{folder}/none"])
    assert imported >= {"onnx", "dkm_deploy.formats.mlpackage.ml_program", "dkm_deploy.report.runs"}
    assert imported & {"torch", "coremltools", "onnxruntime", "onnxscript"} == set()


def test_every_command_can_be_asked_for():
    for name in COMMANDS:
        with pytest.raises(SystemExit) as stop:
            build_parser([name]).parse_args([name, "--help"])
        assert stop.value.code == 0


def test_a_command_after_an_option_is_found(capsys):
    with pytest.raises(SystemExit):
        build_parser(["--", "inspect"]).parse_args(["inspect", "--help"])
    assert "where every byte went" in capsys.readouterr().out
