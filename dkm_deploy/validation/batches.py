"""How many samples to give a file at a time, by the ranges that it allows."""

from __future__ import annotations

from collections.abc import Sequence

Range = tuple[int, int | None]
"""Smallest and largest number that is allowed; None where there is no largest."""


def largest_batch(allowed: Sequence[Range], count: int) -> int | None:
    """The largest number to cut ``count`` samples into; the last batch may be smaller.

    None if all samples may be given at once, or no number is such that every batch is allowed.
    """
    if not allowed or _allows(allowed, count):
        return None
    most = max(count if high is None else min(high, count) for _, high in allowed)
    sizes = (n for n in range(most, 0, -1) if _allows(allowed, n))
    return next((n for n in sizes if count % n == 0 or _allows(allowed, count % n)), None)


def smallest_batch(allowed: Sequence[Range]) -> int:
    """The smallest number of samples that is allowed, at least 1."""
    return max(1, min((low for low, _ in allowed), default=1))


def _allows(allowed: Sequence[Range], count: int) -> bool:
    return any(low <= count and (high is None or count <= high) for low, high in allowed)
