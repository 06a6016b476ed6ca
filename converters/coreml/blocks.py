"""Palettes in another layout: the gates of an LSTM in another order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dkm_deploy.errors import DkmError
from dkm_deploy.palette import Palette


def reorder(palette: Palette, order: Sequence[int]) -> Palette:
    """The palette of the weight with its rows in another order; the LUTs' values stay.

    Args:
        palette: of a weight whose dimension 0 is ``len(order)`` equal blocks.
        order: for each block of the result, the block of the weight that it is.

    Raises:
        DkmError: a LUT, or a vector of a LUT, spans two blocks.
    """
    blocks = len(order)
    if palette.groups[0] != 1 and palette.groups[0] % blocks:
        raise DkmError(
            f"a LUT spans two of its {blocks} gates; choose a group_size that divides "
            f"{palette.shape[0] // blocks}, or axis 1"
        )
    if palette.indices.shape[0] % blocks:
        raise DkmError(
            f"a vector of {palette.cluster_dim} spans two of its {blocks} gates of "
            f"{palette.shape[0] // blocks} rows; choose another cluster_dim, or axis 1"
        )
    lut = palette.lut if palette.groups[0] == 1 else in_order(palette.lut, order)
    scale = None if palette.scale is None else in_order(palette.scale, order)
    return Palette(in_order(palette.indices, order), lut, palette.axis, scale=scale)


def in_order(array: NDArray[Any], order: Sequence[int]) -> NDArray[Any]:
    """The blocks along dimension 0 of an array in another order."""
    blocks = array.reshape(len(order), -1, *array.shape[1:])
    return blocks[list(order)].reshape(array.shape)


def inverse(order: Sequence[int]) -> tuple[int, ...]:
    """The order that undoes ``order``."""
    return tuple(int(place) for place in np.argsort(order))
