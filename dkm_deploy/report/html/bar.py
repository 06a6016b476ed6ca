"""The size bar: the bytes of a file by kind, drawn to scale, with a legend that adds up."""

from __future__ import annotations

from collections.abc import Mapping

from dkm_deploy.report import text
from dkm_deploy.report.html.markup import Column, Markup, element, join, table

_WORDS = {
    "indices": "indices: which LUT entry each weight takes",
    "lut": "LUTs: the values themselves",
    "dense": "dense: weights that are not palettized",
    "graph": "graph: operations and descriptions of tensors",
    "metadata": "metadata: names, versions, manifests",
    "padding": "padding: alignment and headers",
}


def size_bar(by_kind: Mapping[str, int]) -> Markup:
    """A stacked bar and its table; ``by_kind`` holds bytes."""
    total = sum(by_kind.values())
    if not total:
        return element("p", "No bytes are accounted for.")
    rows = [
        (_key(kind), text.count_text(size), text.percent(size / total, 1))
        for kind, size in by_kind.items()
    ]
    columns = [Column("Kind", figures=False), Column("Bytes"), Column("Share")]
    sums = ("total", text.count_text(total), text.percent(1, 1))
    return join([_bar(by_kind, total), table("Bytes by kind", columns, rows, sums, narrow=True)])


def _bar(by_kind: Mapping[str, int], total: int) -> Markup:
    parts, start = [], 0
    for kind, size in by_kind.items():
        parts.append(_part(kind, start / total, size / total, text.count_text(size)))
        start += size
    label = f"{text.count_text(total)} bytes by kind"
    return element("svg", *parts, class_="bar", role="img", aria_label=label)


def _part(kind: str, start: float, share: float, size: str) -> Markup:
    title = element("title", f"{kind}: {size} bytes")
    place = {"x": f"{100 * start:.4f}%", "width": f"{100 * share:.4f}%", "height": "100%"}
    return element("rect", title, class_=_class(kind), **place)


def _key(kind: str) -> Markup:
    square = element("rect", width="100%", height="100%", class_=_class(kind))
    swatch = element("svg", square, class_="swatch", aria_hidden="true")
    return join([swatch, _WORDS.get(kind, kind)])


def _class(kind: str) -> str:
    return kind if kind in _WORDS else "other"
