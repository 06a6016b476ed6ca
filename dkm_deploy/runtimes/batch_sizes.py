"""How many samples to give a file at a time, by the ranges that it allows."""

from __future__ import annotations

from collections.abc import Sequence

Range = tuple[int, int | None]
"""Smallest and largest number that is allowed; None where there is no largest."""


def largest_batch(allowed: Sequence[Range], count: int, most: int) -> int:
    """The largest number, ``most`` at most, to cut ``count`` samples into; the last may be smaller.

    All of them if no number is such that every batch is allowed: the file says what is wrong.
    """
    sizes = range(min(count, most), 0, -1)
    if not allowed:
        return sizes[0]
    fitting = (n for n in sizes if _allows(allowed, n))
    return next((n for n in fitting if count % n == 0 or _allows(allowed, count % n)), count)


def smallest_batch(allowed: Sequence[Range]) -> int:
    """The smallest number of samples that is allowed, at least 1."""
    return max(1, min((low for low, _ in allowed), default=1))


def _allows(allowed: Sequence[Range], count: int) -> bool:
    return any(low <= count and (high is None or count <= high) for low, high in allowed)
