"""LUTs on a symmetric 8-bit grid: every entry is a whole multiple, -127 to 127, of one step."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST = 127
_NEAR = 1e-3  # of a step: what the rounding of a float32 or float16 LUT leaves
_HALF = np.finfo(np.float16)


def step_of(lut: NDArray[Any]) -> np.float32:
    """The step of a LUT's grid: its largest magnitude is 127 of them; 1 if all are 0."""
    largest = np.abs(lut).max(initial=0)
    return np.float32(largest) / np.float32(LARGEST) if largest else np.float32(1)


def round_lut(lut: NDArray[Any]) -> NDArray[Any]:
    """The LUT with every entry moved to a grid, at most half a step; in its own dtype.

    The step is one that float16 holds, for files that keep it so; only where it is too small or
    too large for that, it has float32's digits.
    """
    step = _half(step_of(lut))
    steps = np.rint(lut / step).astype(np.float32) + np.float32(0)  # no -0, which integers lack
    moved: NDArray[Any] = (steps * step).astype(lut.dtype)
    return moved


def on_grid(lut: NDArray[Any]) -> bool:
    """Whether every entry lies on the LUT's grid."""
    steps = lut.astype(np.float64) / step_of(lut)
    return bool((np.abs(steps - np.rint(steps)) < _NEAR).all())


def _half(step: np.float32) -> np.float32:
    """The nearest float16 number, among those that have all its digits."""
    fits = _HALF.smallest_normal <= step <= _HALF.max
    return np.float32(np.float16(step)) if fits else step
