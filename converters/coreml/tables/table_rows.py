"""Tables of which a program reads some rows, known beforehand: which ones, and the table again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.coreml.tables.row_blocks import pick, pick_blocks
from dkm_deploy.errors import DkmError
from dkm_deploy.palette import Palette


@dataclass(frozen=True)
class TableRows:
    """Which rows of a table a decode holds.

    Attributes:
        blocks: equal blocks of rows that make up the table; no LUT and no vector spans two.
        luts: whether each block has LUTs of its own.
        runs: of the blocks held, in their order: first and behind the last of each run.
    """

    blocks: int
    luts: bool
    runs: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        if not self.runs or not all(0 <= start < stop <= self.blocks for start, stop in self.runs):
            runs = [list(run) for run in self.runs]
            raise DkmError(f"runs are {runs}; they do not fit a table of {self.blocks} blocks")

    @property
    def count(self) -> int:
        """How many blocks these are."""
        return sum(stop - start for start, stop in self.runs)

    @property
    def places(self) -> NDArray[np.intp]:
        """Their numbers."""
        return np.concatenate([np.arange(start, stop) for start, stop in self.runs])

    @property
    def is_whole(self) -> bool:
        """Whether it is the table as it is."""
        return self.runs == ((0, self.blocks),)


def find_rows(rows: NDArray[np.integer[Any]], palette: Palette) -> TableRows | None:
    """The rows of a table with these numbers, shape ``(n,)``.

    None if one comes twice or is not there, or if they tear apart what shares a LUT or a vector.
    """
    table = palette.shape[0]
    size = _together(palette)
    places = rows[::size] // size
    if not np.array_equal((places[:, None] * size + np.arange(size)).ravel(), rows):
        return None
    if (
        not rows.size
        or rows.min() < 0
        or rows.max() >= table
        or np.unique(places).size < places.size
    ):
        return None
    breaks = [0, *(np.flatnonzero(np.diff(places) != 1) + 1).tolist(), places.size]
    runs = tuple((int(places[a]), int(places[b - 1]) + 1) for a, b in pairwise(breaks))
    return TableRows(table // size, palette.groups[0] > 1, runs)


def collapse_repeats(positions: NDArray[Any]) -> NDArray[Any]:
    """Positions with the length 1 along dimensions in which they repeat: these can broadcast."""
    for axis in range(positions.ndim):
        first = positions.take([0], axis) if positions.size else positions
        positions = first if (first == positions).all() else positions
    return positions


def remaining_rows(table: Palette, parts: Sequence[TableRows]) -> Palette | None:
    """The rows that no part holds, in their order; None if there are none."""
    missing = _missing_blocks(parts[0].blocks, [part.places for part in parts])
    return pick(table, missing, parts[0].blocks) if missing.size else None


def join_parts(
    parts: Sequence[tuple[TableRows, Palette]], rest: Callable[[int], Palette]
) -> Palette:
    """The table that these are parts of.

    Args:
        parts: one or more, which may hold the same rows.
        rest: the rows that none of them holds, given the number of their blocks.

    Raises:
        DkmError: the parts do not fit together, or what ``rest`` raises.
    """
    blocks, luts = parts[0][0].blocks, parts[0][0].luts
    if any(part.count > len(palette.indices) for part, palette in parts):
        raise DkmError("a part has fewer rows than its metadata says")
    places = [part.places for part, _ in parts]
    palettes = [palette for _, palette in parts]
    count = blocks - np.unique(np.concatenate(places)).size
    if count:
        palettes.append(rest(count))  # before arrays of this size are made: it may be absurd
        places.append(_missing_blocks(blocks, places))
    try:
        table = _assemble_blocks(places, palettes, luts=luts)
        same = all(pick(table, p, blocks) == made for p, made in zip(places, palettes, strict=True))
    except ValueError as error:  # of numpy, for shapes that differ
        raise DkmError(f"its parts do not fit together: {error}") from error
    if not same or any((part.blocks, part.luts) != (blocks, luts) for part, _ in parts):
        raise DkmError("its parts do not fit together: they are of different tables")
    return table


def _assemble_blocks(
    places: Sequence[NDArray[np.intp]], palettes: Sequence[Palette], *, luts: bool
) -> Palette:
    """The table of which these palettes hold the blocks at these places."""
    order = np.concatenate(places)
    first = np.unique(order, return_index=True)[1]

    def gathered(arrays: Iterable[NDArray[Any]]) -> NDArray[Any]:
        return pick_blocks(np.concatenate(list(arrays)), first, order.size)

    like = palettes[0]
    lut = gathered(p.lut for p in palettes) if luts else like.lut
    scale = None if like.scale is None else gathered(_scale(p) for p in palettes)
    return Palette(gathered(p.indices for p in palettes), lut, like.axis, scale=scale)


def _scale(palette: Palette) -> NDArray[Any]:
    if palette.scale is None:
        raise DkmError("one has a scale, another has none")
    return palette.scale


def _missing_blocks(blocks: int, places: Sequence[NDArray[np.intp]]) -> NDArray[np.intp]:
    return np.setdiff1d(np.arange(blocks), np.concatenate(places))


def _together(palette: Palette) -> int:
    """Rows that share a LUT or a vector and so stay together."""
    if palette.groups[0] > 1:
        return palette.shape[0] // palette.groups[0]
    return palette.cluster_dim if palette.axis == 0 else 1
