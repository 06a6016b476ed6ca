"""Many vectors as fewer means with masses, for searches that would take too long on all."""

from __future__ import annotations

import torch
from torch import Tensor


def merge_equal(vectors: Tensor, masses: Tensor | None) -> tuple[Tensor, Tensor]:
    """The distinct vectors, sorted, and the masses of all that are equal.

    Args:
        vectors: float64, ``(count, dim)``.
        masses: of the squared differences, shaped alike; None is 1 each, and gives ``(count, 1)``.
    """
    distinct, place = torch.unique(vectors, dim=0, return_inverse=True)
    mass = torch.ones_like(vectors[:, :1]) if masses is None else masses
    sums = mass.new_zeros(len(distinct), mass.shape[1])
    return distinct, sums.index_add_(0, place, mass)


def cells(vectors: Tensor, masses: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Small cells of neighbouring vectors, like the leaves of a k-d tree.

    Every cell is halved at its mean across the dimension in which its error is largest, as often
    as ``most`` allows. Of a cell whose vectors all have the same nearest centroid, the squared
    error is that of its mean with its mass, up to a constant.

    Args:
        vectors: float64, ``(count, dim)``.
        masses: of the squared differences, shaped alike or ``(count, 1)``, above 0.
        most: cells.

    Returns:
        The means ``(cells, dim)`` and the masses, both float64; the vectors themselves where they
        are no more than ``most``.
    """
    if len(vectors) <= most:
        return vectors, masses
    place = torch.zeros(len(vectors), dtype=torch.int64, device=vectors.device)
    levels = most.bit_length() - 1
    for level in range(levels):
        means, _ = _means(vectors, masses, place, 1 << level)
        gaps = vectors - means[place]
        errors = torch.zeros_like(means).index_add_(0, place, masses * gaps.square())
        widest = errors.argmax(1)[place]
        place = 2 * place + (gaps.gather(1, widest[:, None])[:, 0] > 0)
    means, sums = _means(vectors, masses, place, 1 << levels)
    filled = sums[:, 0] > 0
    return means[filled], sums[filled]


def _means(vectors: Tensor, masses: Tensor, place: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The weighted means of ``count`` cells and their masses; zeros for empty ones."""
    totals = vectors.new_zeros(count, vectors.shape[1]).index_add_(0, place, masses * vectors)
    sums = masses.new_zeros(count, masses.shape[1]).index_add_(0, place, masses)
    return totals / sums.clamp(min=torch.finfo(sums.dtype).tiny), sums
