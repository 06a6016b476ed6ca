"""Palettes in another layout: blocks of rows picked, a table behind dimensions of length 1."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
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
    rows = palette.shape[0]
    spanning = spans(
        rows,
        len(order),
        group=rows // palette.groups[0],
        vector=palette.cluster_dim if palette.axis == 0 else 1,
    )
    if spanning:
        raise DkmError(spanning)
    return pick(palette, order, len(order))


def pick(palette: Palette, places: Sequence[int] | NDArray[np.intp], count: int) -> Palette:
    """Some of a weight's ``count`` equal blocks of rows, which no LUT and no vector spans."""
    lut = palette.lut if palette.groups[0] == 1 else pick_blocks(palette.lut, places, count)
    scale = None if palette.scale is None else pick_blocks(palette.scale, places, count)
    return Palette(pick_blocks(palette.indices, places, count), lut, palette.axis, scale=scale)


def spans(rows: int, gates: int, *, group: int, vector: int) -> str | None:
    """Why the gates of a weight cannot be put in another order with the same LUTs, or None.

    Args:
        rows: of the weight.
        gates: equal blocks of rows.
        group: rows that share a LUT; all of them are no grouping.
        vector: rows that a LUT entry fills.
    """
    if group < rows and rows % (gates * group):
        return (
            f"a LUT of {group} rows spans two of its {gates} gates; "
            f"choose a group_size that divides {rows // gates}, or axis 1"
        )
    if rows % (gates * vector):
        return (
            f"a vector of {vector} spans two of its {gates} gates of {rows // gates} rows; "
            "choose another cluster_dim, or axis 1"
        )
    return None


def in_order(array: NDArray[Any], order: Sequence[int]) -> NDArray[Any]:
    """The blocks along dimension 0 of an array in another order."""
    return pick_blocks(array, order, len(order))


def pick_blocks(
    array: NDArray[Any], places: Sequence[int] | NDArray[np.intp], count: int
) -> NDArray[Any]:
    """Some of the ``count`` equal blocks along dimension 0 of an array."""
    blocks = array.reshape(count, -1, *array.shape[1:])
    return blocks[np.asarray(places, np.intp)].reshape(-1, *array.shape[1:])


def inverse(order: Sequence[int]) -> tuple[int, ...]:
    """The order that undoes ``order``."""
    return tuple(int(place) for place in np.argsort(order))


def add_leading_dims(palette: Palette, ones: int) -> Palette:
    """The palette of the same weight behind ``ones`` dimensions of length 1, without its scale."""
    indices, lut = before(palette.indices, ones), before(palette.lut, ones)
    return Palette(indices, lut, palette.axis + ones)


def drop_leading_dims(palette: Palette, ones: int) -> Palette:
    """Undo :func:`add_leading_dims`. Raises DkmError if there are no such dimensions."""
    shape = palette.indices.shape
    if not 0 < ones < len(shape) or set(shape[:ones]) != {1}:
        raise DkmError(f"{palette!r} is no palette behind {ones} dimensions of length 1")
    lut = palette.lut.reshape(palette.lut.shape[ones:])
    return Palette(palette.indices.reshape(shape[ones:]), lut, max(palette.axis - ones, 0))


def before(array: NDArray[Any], ones: int) -> NDArray[Any]:
    """An array with ``ones`` dimensions of length 1 put before its own."""
    return array.reshape((1,) * ones + array.shape)


def behind(array: NDArray[Any], ones: int) -> NDArray[Any]:
    """Undo :func:`before`; an array that has no such dimensions stays what it is."""
    shape = array.shape[ones:]
    return array.reshape(shape) if array.size == prod(shape) else array
