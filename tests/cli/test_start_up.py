"""A command imports what it needs: `--help` neither torch nor another command."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from dkm_deploy.cli import COMMANDS, build_parser

# What takes long to import, or much memory.
HEAVY = {"torch", "numpy", "onnx", "onnxruntime", "coremltools", "safetensors", "rich", "asyncio"}


def _imported(code):
    """Names of all modules that are imported once a fresh process has run ``code``."""
    code += "\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def _asked(*arguments):
    """Code that runs a command that ends with its help or the version."""
    return (
        "import contextlib\n"
        "from dkm_deploy.cli import main\n"
        f"with contextlib.suppress(SystemExit):\n    main({list(arguments)!r})\n"
    )


@pytest.mark.parametrize("flag", ["--version", "--help"])
def test_the_list_of_commands_imports_none_of_them(flag):
    imported = _imported(_asked(flag))
    assert imported & HEAVY == set()
    assert imported & {f"dkm_deploy.cli.{name}" for name in COMMANDS} == set()


def test_the_help_of_every_command_imports_nothing_that_it_does_not_print():
    imported = _imported("".join(_asked(name, "--help") for name in COMMANDS))
    assert imported >= {f"dkm_deploy.cli.{name}" for name in COMMANDS}
    assert imported & HEAVY == set()


def test_every_command_can_be_asked_for():
    for name in COMMANDS:
        with pytest.raises(SystemExit) as stop:
            build_parser([name]).parse_args([name, "--help"])
        assert stop.value.code == 0


def test_a_command_after_an_option_is_found(capsys):
    with pytest.raises(SystemExit):
        build_parser(["--", "inspect"]).parse_args(["inspect", "--help"])
    assert "where every byte went" in capsys.readouterr().out
