"""What a file costs to load and run, in words and as a table beside the dense file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dkm_deploy.report import text
from dkm_deploy.report.cost_figures import FIGURES, amount, measured_how
from dkm_deploy.report.html.markup import Column, Markup, element, join, table


def costs(model: Mapping[str, Any]) -> list[Markup]:
    """A heading, the table and how it was measured; nothing where nothing was."""
    cost = model["cost"]
    if cost is None:
        return []
    columns = [Column("Figure", figures=False), *map(Column, ("This file", "Dense file", "Ratio"))]
    rows = [(words, *_cells(cost, key)) for key, words in FIGURES.items()]
    listed = table(f"Cost of {model['name']}", columns, rows, narrow=True)
    note = element("p", f"{measured_how(cost)}.", class_="muted")
    return [join([element("h3", "What it costs to run"), listed, note])]


def _cells(cost: Mapping[str, Any], key: str) -> tuple[str, str, str]:
    dense = cost["dense"]
    beside = text.DASH if dense is None else amount(key, dense[key])
    return amount(key, cost["file"][key]), beside, text.times(cost["ratios"].get(key))
