"""Soft k-means of weighted points on a line: attention and its iterations.

Points of all groups stand one after the other. Attention is computed only where it is not 0 in
float64, for a band of neighbouring centroids: time does not grow with the clusters.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_CUT = 37.0  # e**-37 is 1e-16 of the nearest centroid's attention
_STEEPEST = 4.0  # centroid gaps a step: what a table that is too coarse can still show


@dataclass(frozen=True)
class Points:
    """Places on a line, with the number of weights at each.

    Attributes:
        at: float64, ``(points,)``, about 0 to 1.
        rows: int64, ``(points,)``: the group of a point.
        mass: float64, ``(points,)``.
        steps: float64, ``(points,)``, spacing of the points; 0 where they are the weights.
    """

    at: Tensor
    rows: Tensor
    mass: Tensor
    steps: Tensor


@dataclass(frozen=True)
class Band:
    """Attention of points to the centroids near them; all others get none.

    Attributes:
        columns: int64, ``(width, points)``: flat index into ``(groups, clusters)``.
        weights: float64, ``(width, points)``, adding up to 1 over the band.
        gaps: float64, ``(width, points)``: point minus centroid.
        rates: float64, ``(points,)``: ``2 / tau``, the steepness of the attention's logits.
    """

    columns: Tensor
    weights: Tensor
    gaps: Tensor
    rates: Tensor

    def slopes(self) -> Tensor:
        """Derivative of the attention with respect to the point, ``(width, points)``."""
        centred = (self.weights * self.gaps).sum(0) - self.gaps
        return self.rates * self.weights * centred

    def total(self, values: Tensor, like: Tensor) -> Tensor:
        """Sum over the points of values ``(width, points)`` by centroid, shaped as ``like``."""
        sums = like.new_zeros(like.numel())
        return sums.index_add_(0, self.columns.flatten(), values.flatten()).view_as(like)

    def take(self, values: Tensor) -> Tensor:
        """Values of centroids ``(groups, clusters)``, as ``(width, points)``."""
        return _pick(values.flatten(), self.columns)


def attend(points: Points, centroids: Tensor, tau: Tensor) -> Band:
    """Attention ``softmax(-(point - centroid)^2 / tau)``.

    Args:
        points: of all groups.
        centroids: float64, ``(groups, clusters)``, in any order.
        tau: float64, ``(groups,)``, above 0.
    """
    clusters = centroids.shape[1]
    ordered, order = centroids.sort(1)
    heads = torch.arange(len(centroids), device=tau.device)[:, None] * clusters
    flat, order = ordered.flatten(), (order + heads).flatten()
    keys = _key(flat, torch.repeat_interleave(heads.flatten() // clusters, clusters))
    first, at, tau = points.rows * clusters, points.at, tau[points.rows]
    after = torch.searchsorted(keys, _key(at, points.rows))
    below = torch.maximum(after - 1, first)
    above = torch.minimum(after, first + clusters - 1)
    nearest = torch.minimum((at - flat[below]).square(), (at - flat[above]).square())
    reach = (nearest + _CUT * tau).sqrt()
    start = torch.searchsorted(keys, _key(at - reach, points.rows))
    stop = torch.searchsorted(keys, _key(at + reach, points.rows), right=True)
    width = int((stop - start).max())
    extent = flat[stop - 1] - flat[start]
    # A turn sharper than the table is no steeper in its gradient than in its values.
    rates = torch.minimum(2 / tau, _STEEPEST / (extent * points.steps))
    start = torch.minimum(start, first + clusters - width)
    columns = start + torch.arange(width, device=tau.device)[:, None]
    gaps = at - _pick(flat, columns)
    scores = ((nearest - gaps.square()) / tau).exp_()
    return Band(_pick(order, columns), scores.div_(scores.sum(0)), gaps, rates)


def _pick(values: Tensor, places: Tensor) -> Tensor:
    # index_select is several times faster than indexing.
    return values.index_select(0, places.flatten()).view_as(places)


def _key(values: Tensor, rows: Tensor) -> Tensor:
    # One sorted line of all groups' centroids, for searchsorted: four units a group.
    return values.clamp(-1, 2) + 4.0 * rows


def update(points: Points, band: Band, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Attention-weighted means and masses of the centroids, both shaped as ``centroids``.

    A centroid that nothing attends to stays where it is and has mass 0.
    """
    weighted = points.mass * band.weights
    mass = band.total(weighted, centroids)
    alive = mass > torch.finfo(mass.dtype).tiny
    # Moves, not means: a mean of positions loses what a small move needs.
    moves = band.total(weighted * band.gaps, centroids) / torch.where(alive, mass, 1)
    return torch.where(alive, centroids + moves, centroids), torch.where(alive, mass, 0)


def iterate(points: Points, centroids: Tensor, tau: Tensor, iterations: int) -> tuple[Tensor, Band]:
    """All centroids on the way, ``(iterations + 1, groups, clusters)``, and the last attention."""
    path = [centroids]
    for _ in range(iterations):
        band = attend(points, path[-1], tau)
        path.append(update(points, band, path[-1])[0])
    return torch.stack(path), band


def soft_values(band: Band, moved: Tensor) -> Tensor:
    """What a weight at each point becomes: the last centroids by the attention that made them."""
    return (band.weights * band.take(moved)).sum(0)
