"""What docs/ci.md shows works: its command line parses, its budget loads, its links lead on."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from dkm_deploy.cli import build_parser
from dkm_deploy.validation.size_budget import Allowance, Budget

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "ci.md").read_text("utf-8")


def _block(language):
    (found,) = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    return found


def test_the_step_is_a_command_that_parses():
    joined = re.sub(r"\\\n\s*", "", _block("yaml"))
    (line,) = re.findall(r"^\s+dkm-deploy (.*)$", joined, re.M)
    words = shlex.split(line)
    arguments = build_parser(words).parse_args(words)
    assert [path.name for path in arguments.files] == ["model.onnx", "model.mlpackage"]
    assert arguments.require


def test_the_budget_loads(tmp_path):
    (tmp_path / "size-budget.toml").write_text(_block("toml"))
    assert Budget.load(tmp_path / "size-budget.toml").files == (
        Allowance("*.onnx", 3_400_000),
        Allowance("*.mlpackage", base_bytes=3_512_004, max_growth=0.01),
    )


def _anchor(heading):
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


PAGES = [*DOCS.glob("*.md"), *DOCS.glob("decisions/*.md"), DOCS.parent / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.S)
    for path, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)", text):
        target = page.parent / path if path else page
        assert target.exists(), path
        headings = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.M) if anchor else []
        assert not anchor or anchor[1:] in map(_anchor, headings), anchor
