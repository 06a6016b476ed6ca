"""What stays of a difference in the mean: where rounding averages out, a fault does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FEWEST = 16  # elements of a slice whose mean is worth more than each of them

Figures = Mapping[int | None, NDArray[np.float64]]


@dataclass(frozen=True)
class GainAndOffset:
    """Gain and offset of a difference, for each slice along a dimension; None is the whole output.

    Attributes:
        gain: ``<a - e, e> / <e, e>`` for the difference ``a - e`` from values ``e``.
        offset: mean of ``a - e``.
    """

    gain: Figures
    offset: Figures


def axes(shape: tuple[int, ...]) -> tuple[int | None, ...]:
    """The whole output, and the dimensions that may hold channels: the second and the last.

    Those are left out along which a slice has too few elements.
    """
    size = int(np.prod(shape))
    found = dict.fromkeys(n for n in (1, len(shape) - 1) if n >= 1 and n < len(shape))
    split = [n for n in found if shape[n] > 1 and size // shape[n] >= _FEWEST]
    return (*([None] if size >= _FEWEST else []), *split)


def gain_and_offset(gap: NDArray[Any], expected: NDArray[Any]) -> GainAndOffset:
    """Gain and offset of a difference ``gap`` from ``expected``, finite and of one shape."""
    gap, expected = gap.astype(np.float64), expected.astype(np.float64)
    gains, offsets = {}, {}
    for axis in axes(gap.shape):
        product, square = mean_along(gap * expected, axis), mean_along(expected**2, axis)
        gains[axis] = np.divide(product, square, out=np.zeros_like(product), where=square > 0)
        offsets[axis] = mean_along(gap, axis)
    return GainAndOffset(gains, offsets)


def root_mean_square(draws: Sequence[GainAndOffset]) -> GainAndOffset:
    """Each figure over several draws."""
    return GainAndOffset(
        _root_mean_square([draw.gain for draw in draws]),
        _root_mean_square([draw.offset for draw in draws]),
    )


def _root_mean_square(draws: Sequence[Figures]) -> Figures:
    return {
        axis: np.sqrt(np.mean([np.square(figures[axis]) for figures in draws], 0))
        for axis in draws[0]
    }


def mean_along(values: NDArray[Any], axis: int | None) -> NDArray[np.float64]:
    """Mean of each slice along ``axis``, or of all as an array of one."""
    others = tuple(n for n in range(values.ndim) if n != axis)
    return np.atleast_1d(values.mean(others, dtype=np.float64))
