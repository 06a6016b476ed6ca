"""What the README promises: its example runs, its commands and folders exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from dkm_deploy.cli import COMMANDS, build_parser

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def _blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_example_is_short_and_passes(tmp_path, monkeypatch, capsys):
    (example,) = _blocks("python")
    assert len(example.splitlines()) <= 20
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    exec(compile(example, "README.md", "exec"), {})  # noqa: S102  # it is our own text
    assert capsys.readouterr().out == "passed\n"
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "model.onnx",
        "model.mlpackage",
        "report.html",
    }


@pytest.mark.parametrize(
    "line",
    re.findall(rf"^dkm-deploy (?:{'|'.join(COMMANDS)}) .*$", re.sub(r"\\\n\s*", "", README), re.M),
)
def test_every_command_line_parses(line):
    arguments = shlex.split(line)[1:]
    build_parser(arguments).parse_args(arguments)


@pytest.mark.parametrize("folder", re.findall(r"^\| `([\w/]+/)`", README, re.M))
def test_every_folder_exists(folder):
    assert (ROOT / folder).is_dir()


@pytest.mark.parametrize("link", re.findall(r"\]\((?!https?:)([^)#]+)\)", README))
def test_every_link_leads_somewhere(link):
    assert (ROOT / link).exists()


@pytest.mark.parametrize("target", re.findall(r"^make (\w+) ", README, re.M))
def test_every_make_target_exists(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), re.M)
