"""The plot of a plan: what is drawn of few points, of many, of one and of none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from dkm_deploy.errors import OutputExistsError
from dkm_deploy.planning.decision import Plan
from dkm_deploy.recipe import Recipe
from dkm_deploy.report.html.pareto import pareto, write_pareto


def plan(points: Sequence[tuple[float, float]], loss: float = 0.01) -> Plan:
    """A plan of 1,000 bytes among others."""
    return Plan(Recipe(None, []), 1_000, 1_000, {}, loss, 0.0, (), tuple(points))


def line(drawing: str) -> list[str]:
    """The corners of the drawn line."""
    (points,) = re.findall(r'<polyline points="([^"]*)"', drawing)
    return str(points).split()


def test_where_no_plan_loses_anything_the_drawing_says_so() -> None:
    drawing = pareto(plan([(1_000.0, 0.0), (2_000.0, 0.0)]))
    assert drawing.startswith('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 400"')
    assert drawing.endswith('><text x="20" y="40">No plan loses anything.</text></svg>')


def test_a_single_plan_stands_in_the_middle_of_axes_of_its_own() -> None:
    drawing = pareto(plan([(1_000.0, 0.01)]))
    assert line(drawing) == ["350.0,185.0", "350.0,185.0"]
    assert 'cx="350.0" cy="185.0"' in drawing
    labels = re.findall(r"<text [^>]*>([^<]*)</text>", drawing)
    # From a byte less to a byte more, and from a tenth of the loss to ten times as much.
    assert labels[:5] == ["999", "1,000", "1,000", "1,000", "1,001"]
    assert labels[5:10] == ["0.00100", "0.00316", "0.0100", "0.0316", "0.100"]


def test_of_many_plans_some_are_drawn_and_the_last() -> None:
    points = [(1_000.0 + i, 10.0 ** -(1 + i / 1_000)) for i in range(1_000)]
    corners = line(pareto(plan(points)))
    assert len(corners) == 500 + 1
    assert (corners[0], corners[-1]) == ("80.0,20.0", "620.0,350.0")


def test_a_plan_that_loses_nothing_has_no_place_on_a_logarithmic_scale() -> None:
    points = [(500.0, 0.5), (900.0, 0.1)]
    assert "<circle" in pareto(plan(points))
    assert "<circle" not in pareto(plan(points, loss=0.0))


def test_the_plot_is_a_file_that_is_replaced_only_by_force(tmp_path: Path) -> None:
    old, new = plan([(500.0, 0.5), (900.0, 0.1)]), plan([(1_000.0, 0.01)])
    write_pareto(old, tmp_path / "plan.svg")
    with pytest.raises(OutputExistsError):
        write_pareto(new, tmp_path / "plan.svg")
    assert (tmp_path / "plan.svg").read_text("utf-8") == pareto(old)
    write_pareto(new, tmp_path / "plan.svg", force=True)
    assert (tmp_path / "plan.svg").read_text("utf-8") == pareto(new)
