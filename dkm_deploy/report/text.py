"""Figures and names as text, the same in every view. None, a value that is not there, is a dash."""

from __future__ import annotations

from collections.abc import Iterable

DASH = "-"


def count_text(value: int | None) -> str:
    """A count or bytes, with thousands separators: ``1,234,567``."""
    return DASH if value is None else f"{value:,}"


def figure(value: float | None) -> str:
    """An error or another measured figure with 3 significant digits: ``1.23e-06``."""
    if value is None:
        return DASH
    return "0" if value == 0 else f"{value:#.3g}".rstrip(".")


def score_text(value: float | None) -> str:
    """A metric with 2 decimals, or with 4 significant digits where 2 decimals hide it."""
    if value is None:
        return DASH
    return f"{value:,.2f}" if value == 0 or abs(value) >= 10 else f"{value:#.4g}"


def fixed_text(value: float | None, decimals: int) -> str:
    """A figure with so many decimals."""
    return DASH if value is None else f"{value:,.{decimals}f}"


def ratio(value: float | None) -> str:
    """How many times smaller: ``12.3x``."""
    return DASH if value is None else f"{value:,.1f}x"


def times(value: float | None) -> str:
    """A quotient of two measurements: ``1.05x``."""
    return DASH if value is None else f"{value:,.2f}x"


def percent(share: float | None, decimals: int = 2) -> str:
    """A share from 0 to 1 as ``99.17%``."""
    return DASH if share is None else f"{100 * share:.{decimals}f}%"


def shape(lengths: Iterable[int]) -> str:
    """``64 x 32 x 3 x 3``."""
    return " x ".join(str(length) for length in lengths) or "scalar"


def plural(count: int, noun: str) -> str:
    """``1 check``, ``2 checks``."""
    return f"{count:,} {noun}" + "s" * (count != 1)
