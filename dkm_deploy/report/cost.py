"""What a file costs to load and run, in words and as a table beside the dense file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dkm_deploy.report import text
from dkm_deploy.report.markup import Column, Markup, element, join, table

_FIGURES = {
    "load_s": "Load",
    "first_s": "First run",
    "median_s": "Median run",
    "p95_s": "95th percentile run",
    "peak_bytes": "Peak memory",
    "steady_bytes": "Steady memory",
}


def sentence(cost: Mapping[str, Any] | None) -> str:
    """All figures in one sentence, with their ratios to the dense file; empty without figures."""
    if cost is None:
        return ""
    parts = [f"{words.lower()} {_told(cost, key)}" for key, words in _FIGURES.items()]
    return f"{', '.join(parts)}; {_how(cost)}"


def costs(model: Mapping[str, Any]) -> list[Markup]:
    """A heading, the table and how it was measured; nothing where nothing was."""
    cost = model["cost"]
    if cost is None:
        return []
    columns = [Column("Figure", figures=False), *map(Column, ("This file", "Dense file", "Ratio"))]
    rows = [(words, *_cells(cost, key)) for key, words in _FIGURES.items()]
    listed = table(f"Cost of {model['name']}", columns, rows, narrow=True)
    note = element("p", f"{_how(cost)}.", class_="muted")
    return [join([element("h3", "What it costs to run"), listed, note])]


def _cells(cost: Mapping[str, Any], key: str) -> tuple[str, str, str]:
    dense = cost["dense"]
    beside = text.DASH if dense is None else _amount(key, dense[key])
    return _amount(key, cost["file"][key]), beside, text.times(cost["ratios"].get(key))


def _told(cost: Mapping[str, Any], key: str) -> str:
    ratio = cost["ratios"].get(key)
    shown = _amount(key, cost["file"][key])
    return shown if ratio is None else f"{shown} ({text.times(ratio)})"


def _amount(key: str, value: float | None) -> str:
    if value is None:
        return text.DASH
    if key.endswith("_s"):
        return f"{text.figure(1e3 * value)} ms"
    return f"{value / 1e6:,.1f} MB"


def _how(cost: Mapping[str, Any]) -> str:
    threads, batch = text.plural(cost["threads"], "thread"), f"batch {cost['batch']}"
    rounds = f"medians of {text.plural(cost['rounds'], 'round')}, each in a fresh process"
    kind = "beside" if cost["dense"] else "no dense file:"
    return f"{threads}, {batch}, {rounds}; {kind} {cost['beside']}"
