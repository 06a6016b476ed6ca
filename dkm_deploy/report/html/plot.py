"""A plot of scores against bytes as an SVG drawing that needs nothing from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dkm_deploy.report import text
from dkm_deploy.report.html.markup import Markup, element
from dkm_deploy.report.runs import Point, RunComparison

_WIDTH, _HEIGHT = 480, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 26, 46
_STEPS = (1, 2, 5)

Scale = Callable[[float], float]


@dataclass(frozen=True)
class _Axes:
    x: Scale
    y: Scale


def plot(found: RunComparison) -> Markup:
    """Points by number, the front as a line, the original's score dashed; bytes on a log scale.

    Args:
        found: at least one of its points has a score.
    """
    drawn = [(i, p, p.score) for i, p in enumerate(found.points, 1) if p.score is not None]
    bytes_ = [math.log10(p.size_bytes) for _, p, _ in drawn]
    scores = [s for _, _, s in drawn] + ([] if found.original is None else [found.original])
    (x0, x1), (y0, y1) = _padded_range(bytes_, 0.02), _padded_range(scores, 0.05)
    axes = _Axes(
        lambda value: _LEFT + (math.log10(value) - x0) / (x1 - x0) * (_WIDTH - _LEFT - _RIGHT),
        lambda value: _HEIGHT - _BOTTOM - (value - y0) / (y1 - y0) * (_HEIGHT - _TOP - _BOTTOM),
    )
    parts = [
        *_grid(axes, _log_ticks(x0, x1), _ticks(y0, y1)),
        _label(_WIDTH - _RIGHT, _HEIGHT - 6, "bytes on disk, log scale", "end"),
        _label(4, 14, found.measure, "start"),
        *([] if found.original is None else [_level(axes.y(found.original))]),
        _front([(axes.x(p.size_bytes), axes.y(s)) for _, p, s in drawn if p.front]),
        *(_point(i, p, axes.x(p.size_bytes), axes.y(s), found.measure) for i, p, s in drawn),
    ]
    label = f"{found.measure} against bytes of {text.plural(len(drawn), 'file')}"
    box = {"viewBox": f"0 0 {_WIDTH} {_HEIGHT}"}
    return element("svg", *parts, class_="plot", role="img", aria_label=label, **box)


def _padded_range(values: Sequence[float], least: float) -> tuple[float, float]:
    """A range with room on both sides."""
    low, high = min(values), max(values)
    room = max(0.1 * (high - low), least, 1e-6 * max(abs(low), abs(high)))
    return low - room, high + room


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between ``10**low`` and ``10**high``; few of them."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    found = [s * 10.0**p for p in powers for s in _STEPS if low <= math.log10(s * 10.0**p) <= high]
    if len(found) < 2:  # a narrow range
        return [float(f"{10**value:.3g}") for value in (low, high)]
    return found[:: -(-len(found) // 6)]


def _ticks(low: float, high: float) -> list[float]:
    """About five round values between ``low`` and ``high``."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (*_STEPS, 10) if s * power >= rough)
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _grid(axes: _Axes, across: Sequence[float], up: Sequence[float]) -> list[Markup]:
    right, ground = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    lines = [element("path", d=f"M{_LEFT} {axes.y(v):.1f}H{right}", class_="grid") for v in up]
    lines += [element("path", d=f"M{axes.x(v):.1f} {_TOP}V{ground}", class_="grid") for v in across]
    lines += [_label(_LEFT - 6, axes.y(v) + 4, f"{v:.6g}", "end") for v in up]
    return lines + [_label(axes.x(v), ground + 16, _amount(v), "middle") for v in across]


def _level(y: float) -> Markup:
    """The original's score."""
    title = element("title", "the original")
    return element("path", title, d=f"M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}", class_="original")


def _front(places: Sequence[tuple[float, float]]) -> Markup:
    """Steps along the best score that so many bytes buy."""
    path = ""
    for x, y in sorted(places):
        path += f"H{x:.1f}V{y:.1f}" if path else f"M{x:.1f} {y:.1f}"
    return element("path", d=path, class_="front")


def _point(number: int, point: Point, x: float, y: float, measure: str) -> Markup:
    told = f"{number}: {point.run}, {point.file}: {text.count_text(point.size_bytes)} bytes, "
    title = element("title", f"{told}{measure} {text.score_text(point.score)}; {point.layout}")
    kind = "best" if point.front else "point"
    circle = element("circle", title, cx=f"{x:.1f}", cy=f"{y:.1f}", r="5", class_=kind)
    return element("g", circle, _label(x, y - 9, str(number), "middle"))


def _label(x: float, y: float, words: str, anchor: str) -> Markup:
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}
    return element("text", words, **place)


def _amount(size: float) -> str:
    """Bytes in short: ``50 KB``, ``2 MB``."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "KB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size:.3g} B"
