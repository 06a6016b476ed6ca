"""The plot of a plan: budget against expected loss, as an SVG file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from dkm_deploy._support.atomic_files import atomic_path
from dkm_deploy.planning.decision import Plan
from dkm_deploy.report import text
from dkm_deploy.report.html.markup import Markup, element

_WIDTH, _HEIGHT = 640, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 20, 20, 50
_POINTS = 400
_TICKS = 5


def write_pareto(plan: Plan, path: Path, *, force: bool = False) -> None:
    """Write the plot; the loss is on a logarithmic scale. Raises OutputExistsError."""
    with atomic_path(path, force=force) as temporary:
        temporary.write_text(pareto(plan), "utf-8")


def pareto(plan: Plan) -> Markup:
    """The best loss at every budget, and the plan's place on it."""
    points = [(size, math.log10(loss)) for size, loss in plan.pareto if loss > 0]
    if not points:
        return _svg(element("text", "No plan loses anything.", x="20", y="40"))
    step = max(1, len(points) // _POINTS)
    shown = [*points[::step], points[-1]]
    xs, ys = _span([x for x, _ in points]), _span([y for _, y in points])
    line = " ".join(f"{_x(x, xs):.1f},{_y(y, ys):.1f}" for x, y in shown)
    parts = [
        *(_across(value, xs) for value in _ticks(xs)),
        *(_up(value, ys) for value in _ticks(ys)),
        element("polyline", points=line, fill="none", stroke="#0969da", stroke_width="2"),
        element("text", "bytes of the file", x=f"{_WIDTH / 2}", y=f"{_HEIGHT - 8}"),
        element("text", "expected loss", x="8", y="14"),
    ]
    if plan.loss > 0:  # on this scale there is no place for none
        place = {"cx": _x(plan.predicted_bytes, xs), "cy": _y(math.log10(plan.loss), ys)}
        label = f"{plan.predicted_bytes:,} bytes, loss {text.figure(plan.loss)}"
        figures = {name: f"{value:.1f}" for name, value in place.items()}
        parts.append(element("circle", element("title", label), r="5", fill="#cf222e", **figures))
    return _svg(*parts)


def _svg(*parts: Markup) -> Markup:
    box = f"0 0 {_WIDTH} {_HEIGHT}"
    style = "font: 12px system-ui, sans-serif; background: #fff"
    namespace = "http://www.w3.org/2000/svg"
    return element("svg", *parts, xmlns=namespace, viewBox=box, role="img", style=style)


def _across(value: float, span: tuple[float, float]) -> Markup:
    label = element(
        "text", text.count_text(round(value)), x=f"{_x(value, span):.1f}", y=f"{_HEIGHT - 30}"
    )
    return element("g", label, text_anchor="middle")


def _up(value: float, span: tuple[float, float]) -> Markup:
    y = f"{_y(value, span):.1f}"
    grid = element("line", x1=f"{_LEFT}", x2=f"{_WIDTH - _RIGHT}", y1=y, y2=y, stroke="#d0d7de")
    label = element("text", text.figure(10**value), x=f"{_LEFT - 8}", y=y, text_anchor="end")
    return element("g", grid, label)


def _ticks(span: tuple[float, float]) -> list[float]:
    low, high = span
    return [low + (high - low) * i / (_TICKS - 1) for i in range(_TICKS)]


def _span(values: Sequence[float]) -> tuple[float, float]:
    """From least to largest, never empty."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 1, high + 1)


def _x(value: float, span: tuple[float, float]) -> float:
    return _LEFT + (value - span[0]) / (span[1] - span[0]) * (_WIDTH - _LEFT - _RIGHT)


def _y(value: float, span: tuple[float, float]) -> float:
    return _HEIGHT - _BOTTOM - (value - span[0]) / (span[1] - span[0]) * (_HEIGHT - _TOP - _BOTTOM)
