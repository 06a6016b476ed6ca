"""What a file costs to load and run, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dkm_deploy.report import text

FIGURES = {
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
    parts = [f"{words.lower()} {_cost_text(cost, key)}" for key, words in FIGURES.items()]
    return f"{', '.join(parts)}; {measured_how(cost)}"


def _cost_text(cost: Mapping[str, Any], key: str) -> str:
    ratio = cost["ratios"].get(key)
    shown = amount(key, cost["file"][key])
    return shown if ratio is None else f"{shown} ({text.times(ratio)})"


def amount(key: str, value: float | None) -> str:
    """A figure of cost in ms or MB."""
    if value is None:
        return text.DASH
    if key.endswith("_s"):
        return f"{text.figure(1e3 * value)} ms"
    return f"{value / 1e6:,.1f} MB"


def measured_how(cost: Mapping[str, Any]) -> str:
    """How the figures were measured: threads, batch, rounds, and beside what."""
    threads, batch = text.plural(cost["threads"], "thread"), f"batch {cost['batch']}"
    rounds = f"medians of {text.plural(cost['rounds'], 'round')}, each in a fresh process"
    kind = "beside" if cost["dense"] else "no dense file:"
    return f"{threads}, {batch}, {rounds}; {kind} {cost['beside']}"
