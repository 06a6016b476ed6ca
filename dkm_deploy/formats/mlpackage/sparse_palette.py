"""Palettes with one index left out: a mask of where it is not, and the other indices in order.

Core ML reads what is left out as zeros, so it must be the index of a LUT entry of zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def zero_entry(lut: NDArray[np.floating]) -> int | None:
    """The first entry that is 0 in all LUTs, which is the one left out; None if there is none.

    Args:
        lut: of a palette, ``(groups.., 2**bits, cluster_dim)``. A negative zero is no zero.
    """
    entries = np.moveaxis((lut == 0) & ~np.signbit(lut), -2, 0)
    zeros = np.flatnonzero(entries.reshape(len(entries), -1).all(1))
    return int(zeros[0]) if zeros.size else None


def leave_out(indices: NDArray[np.uint8], entry: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """The mask, uint8 of the indices' shape with 0 for ``entry``; and the others, ``(n,)``."""
    kept = indices != entry
    return kept.astype(np.uint8), indices[kept]


def put_back(nonzero: NDArray[Any], mask: NDArray[Any], left_out: int = 0) -> NDArray[Any]:
    """Undo :func:`leave_out`. Raises ValueError if there is not one value for each place."""
    if np.count_nonzero(mask) != nonzero.size:
        raise ValueError(f"{nonzero.size} values for a mask of {np.count_nonzero(mask)} places")
    dense = np.full(mask.shape, left_out, nonzero.dtype)
    dense[mask != 0] = nonzero
    return dense
