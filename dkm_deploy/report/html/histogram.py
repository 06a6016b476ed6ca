"""A picture of each palettized weight: its values before and after, its centroids and their use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dkm_deploy.report import text
from dkm_deploy.report.html.markup import Markup, element, join

_WIDTH, _HEIGHT, _TOP = 240, 60, 56  # of the drawing; the highest bar or stem
_LEGEND = (
    "Grey: the original's weights. Lines: the centroids, each as high as it is used. "
    "Blue: the palettized weights, where there are several LUTs, vectors or scales. "
    "Each of the three is drawn to its own height."
)


def histograms(layers: Sequence[Mapping[str, Any]], found: Mapping[str, Any]) -> list[Markup]:
    """A legend and a figure for each layer that has a histogram; nothing if none has."""
    figures = [_figure(layer, found[layer["name"]]) for layer in layers if layer["name"] in found]
    if not figures:
        return []
    return [element("p", _LEGEND, class_="muted"), element("div", join(figures), class_="figures")]


def _figure(layer: Mapping[str, Any], found: Mapping[str, Any]) -> Markup:
    spread = f"{text.figure(found['low'])} to {text.figure(found['high'])}"
    told = f"{layer['used_entries']} of {2 ** layer['bits']} entries used, entropy "
    told += f"{text.fixed_text(layer['entropy_bits'], 2)} of {layer['bits']} bits; {spread}"
    caption = element("figcaption", element("code", layer["name"]), f": {told}")
    return element("figure", _draw(layer, found), caption)


def _draw(layer: Mapping[str, Any], found: Mapping[str, Any]) -> Markup:
    parts = [element("path", d=_bars(found["original"]), class_="before")]
    if found["centroids"]:
        parts.append(element("path", d=_stems(layer, found), class_="stems"))
    else:
        parts.append(element("path", d=_bars(found["palettized"]), class_="after"))
    label = f"Histogram of {layer['name']}"
    box = {"viewBox": f"0 0 {_WIDTH} {_HEIGHT}", "preserveAspectRatio": "none"}
    return element("svg", *parts, class_="histogram", role="img", aria_label=label, **box)


def _bars(counts: Sequence[int]) -> str:
    """The path of bars from the ground up, as wide as there is room."""
    most = max(counts, default=0)
    step = _WIDTH / max(len(counts), 1)
    tops = [(i, _HEIGHT - _TOP * n / most) for i, n in enumerate(counts) if n]
    return "".join(
        f"M{i * step:.1f} {_HEIGHT}V{top:.1f}H{(i + 1) * step:.1f}V{_HEIGHT}Z" for i, top in tops
    )


def _stems(layer: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """The path of a line for each centroid that is used."""
    most = max(layer["uses"])
    low, width = found["low"], found["high"] - found["low"]
    pairs = zip(found["centroids"], layer["uses"], strict=True)
    return "".join(
        f"M{_WIDTH * (value - low) / width:.1f} {_HEIGHT}V{_HEIGHT - _TOP * uses / most:.1f}"
        for value, uses in pairs
        if uses
    )
