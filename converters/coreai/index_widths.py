"""The widths of indices that Core AI has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from converters.storage import widened_notes
from dkm_deploy.palette import Palette

_WIDTHS = (1, 2, 4, 6, 8)


def stored_bits(bits: int) -> int:
    """The narrowest index type that holds ``bits`` bits."""
    return next(width for width in _WIDTHS if width >= bits)


def notes(palettes: Mapping[str, Palette]) -> Iterator[str]:
    """A line for each width that is stored in a wider type."""
    return widened_notes(palettes, stored_bits, "Core AI")
