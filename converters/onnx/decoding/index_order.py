"""The order in which a palette's indices are stored: those of one LUT beside each other."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from dkm_deploy.palette import Palette


@dataclass(frozen=True)
class Order:
    """How decoded values, group by group, become a weight.

    Attributes:
        shape: of the weight.
        members: indices of one group.
        split: shape of the decoded values with groups, members of each dimension and the values
            of a LUT entry apart, those of size 1 left out.
        permutation: of ``split`` that gives the weight's order; empty if it has it already.
    """

    shape: tuple[int, ...]
    members: int
    split: tuple[int, ...]
    permutation: tuple[int, ...]

    @classmethod
    def of(cls, palette: Palette) -> Order:
        """The order of a palette's indices."""
        dims = palette.indices.shape
        sizes = {("group", dim): count for dim, count in enumerate(palette.groups)}
        for dim, (length, count) in enumerate(zip(dims, palette.groups, strict=True)):
            sizes["member", dim] = length // count
        sizes["entry", palette.axis] = palette.cluster_dim
        stored = [part for part, size in sizes.items() if size > 1]
        # Within a dimension: its group, its member, and what a LUT entry holds of it.
        wanted = sorted(stored, key=lambda p: (p[1], ("group", "member", "entry").index(p[0])))
        moved = tuple(stored.index(part) for part in wanted)
        return cls(
            palette.shape,
            prod(dims) // prod(palette.groups),
            tuple(sizes[part] for part in stored),
            moved if moved != tuple(sorted(moved)) else (),
        )


def by_group(palette: Palette) -> NDArray[np.uint8]:
    """The indices of a palette in the order in which they are stored, flat."""
    split: list[int] = []
    for length, count in zip(palette.indices.shape, palette.groups, strict=True):
        split += [count, length // count]
    rank = len(palette.groups)
    moved = [2 * dim for dim in range(rank)] + [2 * dim + 1 for dim in range(rank)]
    return np.ascontiguousarray(palette.indices.reshape(split).transpose(moved)).reshape(-1)
