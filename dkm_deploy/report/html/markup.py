"""HTML from plain values. Every string is escaped unless this module made it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from dkm_deploy.errors import printable


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


@dataclass(frozen=True)
class Column:
    """The head of a table's column; figures are set to the right."""

    title: str
    figures: bool = True


_VOID = {"img"}


def element(tag: str, *children: str, **attributes: str) -> Markup:
    """``<tag attributes>children</tag>``; ``class_`` and ``aria_label`` are written as in HTML."""
    named = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(printable(value))}"'
        for name, value in attributes.items()
    )
    end = "" if tag in _VOID else f"</{tag}>"
    return Markup(f"<{tag}{named}>{''.join(map(_escape, children))}{end}")


def join(parts: Iterable[str]) -> Markup:
    """One piece of HTML from several."""
    return Markup("\n".join(map(_escape, parts)))


def table(
    label: str,
    columns: Sequence[Column],
    rows: Iterable[Sequence[str]],
    total: Sequence[str] | None = None,
    *,
    narrow: bool = False,
) -> Markup:
    """A table in a box of its own that scrolls sideways; the first cell of a row names it."""
    head = (element("th", c.title, scope="col", **_align(c)) for c in columns)
    parts = [element("thead", element("tr", *head))]
    parts.append(element("tbody", join(_row(columns, row) for row in rows)))
    if total:
        parts.append(element("tfoot", _row(columns, total)))
    kind = "scroll narrow" if narrow else "scroll"
    box = {"class_": kind, "role": "region", "tabindex": "0", "aria_label": label}
    return element("div", element("table", join(parts)), **box)


def _row(columns: Sequence[Column], cells: Sequence[str]) -> Markup:
    first = element("th", cells[0], scope="row", **_align(columns[0]))
    pairs = zip(columns[1:], cells[1:], strict=True)
    return element("tr", first, *(element("td", cell, **_align(c)) for c, cell in pairs))


def _align(column: Column) -> dict[str, str]:
    return {"class_": "figure"} if column.figures else {}


def _escape(text: str) -> str:
    return text if isinstance(text, Markup) else escape(printable(text))
