"""A plan on the terminal and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from dkm_deploy.errors import OutputExistsError
from dkm_deploy.palette_spec import PaletteSpec
from dkm_deploy.planning.decision import Decision, Plan
from dkm_deploy.recipe import Recipe
from dkm_deploy.report.terminal.plan import show_plan, write_plan

DECISION = Decision(
    "encoder.layers.11.attention.output.projection.weight",
    (64, 32, 3, 3),
    PaletteSpec(4, group_size=16),
    1_234.4,
    0.25,
)
PLAN = Plan(Recipe(None, []), 2_000, 1_300, {"onnx": 1_299}, 0.25, 0.2, (DECISION,), ((1.0, 2.0),))


def test_the_json_has_every_figure_a_line_each(tmp_path: Path) -> None:
    write_plan(PLAN, tmp_path / "plan.json")
    text = (tmp_path / "plan.json").read_text("utf-8")
    assert json.loads(text) == json.loads(json.dumps(asdict(PLAN)))
    assert text.startswith('{\n "recipe": {\n')
    assert '\n   "name": "encoder.layers.11.attention.output.projection.weight",\n' in text
    assert text.endswith("\n}\n")


def test_the_json_is_replaced_only_by_force(tmp_path: Path) -> None:
    write_plan(PLAN, tmp_path / "plan.json")
    with pytest.raises(OutputExistsError):
        write_plan(replace(PLAN, loss=7.0), tmp_path / "plan.json")
    assert json.loads((tmp_path / "plan.json").read_text())["loss"] == 0.25
    write_plan(replace(PLAN, loss=7.0), tmp_path / "plan.json", force=True)
    assert json.loads((tmp_path / "plan.json").read_text())["loss"] == 7.0


def test_on_a_narrow_terminal_only_names_fold() -> None:
    console = Console(file=StringIO(), width=30, force_terminal=True, color_system=None)
    show_plan(PLAN, console)
    assert isinstance(console.file, StringIO)
    rows = console.file.getvalue().split("\n")
    assert "64 x 32 x 3 x 3  4 bits, 16 channels a LUT  1,234  0.250" in rows[2]
    assert DECISION.name in "".join(row.split(" ")[0] for row in rows[2:-6])
