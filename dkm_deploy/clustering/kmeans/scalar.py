"""One-dimensional k-means: optimal clusters of runs of values, of shorter runs, of all values."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dkm_deploy.clustering.kmeans.scalar_dynamic_programming import (
    Floats,
    Integers,
    PrefixSums,
    between_neighbours,
    optimal_runs,
    step_by_step,
)

_DENSITY = 1 << 14  # bins of the histogram that estimates a density
_FIRST, _FEWEST = 8, 512  # runs a cluster, and in all, that the start is optimal for
_SECOND, _MOST = 512, 1 << 15  # of these bounds are optimal between their neighbours; all of few
_COMPARED = 32  # centroids with fewer bounds are told apart by comparisons
_BLOCK = 1 << 15  # values compared at a time


def cluster_scalars(values: Tensor, clusters: int, masses: Tensor | None = None) -> Tensor:
    """The clusters of the least squared error, on the CPU with one sort and a few passes.

    That is the optimum wherever we have compared; of 256 clusters of more than 32,768 values it
    may be 1e-4 above.

    Args:
        values: floating, ``(count,)``.
        clusters: centroids to find.
        masses: how much each value counts, float64 ``(count,)``, at least 1; None is 1 each.

    Returns:
        float64 ``(clusters,)``, sorted; the last value repeated where there are fewer.
    """
    weights = None if masses is None else masses.cpu().numpy()
    points, below = _distinct(values.cpu().numpy(), weights)
    exponent = max(int(np.frexp(np.abs(points).max())[1]), 0)
    points = np.ldexp(points, -exponent)  # squares of large float64 are infinite
    if len(points) > clusters:
        table, middle = _centre_points(points, below)
        bounds = _bounds(points, table, clusters)
        means = np.diff(table.total[bounds]) / np.diff(table.count[bounds])
        # Sums are rounded: the mean of one value, such as the zeros of pruning, is that value.
        points = means.clip(points[bounds[:-1]], points[bounds[1:] - 1]) + middle
    padded = np.pad(points, (0, clusters - len(points)), mode="edge")
    return torch.from_numpy(np.ldexp(padded, exponent)).to(values.device)


def _bounds(points: Floats, table: PrefixSums, clusters: int) -> Integers:
    """Bounds of the clusters, from few runs to all entries."""
    cuts = _cuts(points, table, max(_FIRST * clusters, _FEWEST))
    bounds = cuts[optimal_runs(table.at(cuts), clusters)]
    if len(cuts) > len(points):  # each entry was a run
        return bounds
    runs = _MOST if len(points) <= _MOST else min(_SECOND * clusters, _MOST)
    cuts = np.union1d(bounds, _cuts(points, table, runs))
    bounds = cuts[between_neighbours(table.at(cuts), np.searchsorted(cuts, bounds))]
    return bounds if len(cuts) > len(points) else step_by_step(table, bounds)


def nearest_scalars(values: Tensor, centroids: Tensor) -> Tensor:
    """The nearest of ``centroids`` ``(clusters,)`` for each of ``values`` ``(count,)``; int64.

    Exact: bounds between centroids are float64, and rounded down to the values' dtype.
    """
    ordered, order = centroids.double().sort(stable=True)
    wide = values.to(torch.promote_types(values.dtype, torch.float32)).contiguous()
    bounds = _at_most((ordered[1:] + ordered[:-1]) / 2, wide.dtype)
    if len(bounds) < _COMPARED and wide.device.type == "cpu":
        return torch.from_numpy(_rank_places(wide.numpy(), bounds.numpy(), order.numpy()))
    return order[torch.bucketize(wide, bounds)]


def _at_most(values: Tensor, dtype: torch.dtype) -> Tensor:
    """The nearest values of ``dtype`` that are no larger."""
    near = values.to(dtype)
    below = torch.nextafter(near, torch.full_like(near, -torch.inf))
    return torch.where(near.double() > values, below, near)


def _rank_places(
    values: NDArray[np.floating], bounds: NDArray[np.floating], order: NDArray[np.int64]
) -> NDArray[np.int64]:
    """What ``order`` has at as many places as bounds lie below a value.

    One comparison a bound, quicker than bisection for few, and of a block that stays in the cache.
    """
    found = np.empty(len(values), np.int64)
    for start in range(0, len(values), _BLOCK):
        block = values[start : start + _BLOCK]
        places, above = np.zeros(len(block), np.uint8), np.empty(len(block), np.bool_)
        for bound in bounds:
            places += np.greater(block, bound, out=above)
        order.take(places, out=found[start : start + _BLOCK], mode="clip")
    return found


def _distinct(values: NDArray[np.floating], masses: Floats | None) -> tuple[Floats, Floats]:
    """The distinct values, sorted, and how much those below each and below all count."""
    if masses is None:
        ordered = np.sort(values)  # far quicker than to sort places
    else:
        order = np.argsort(values)
        ordered, masses = values[order], masses[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    points = ordered[starts].astype(np.float64)
    if masses is None:
        below = np.full(len(starts) + 1, len(ordered), np.float64)
        below[:-1] = starts
        return points, below
    return points, _prefix(np.add.reduceat(masses, starts))


def _centre_points(points: Floats, below: Floats) -> tuple[PrefixSums, float]:
    """The table of the points, which are moved by their mean, and that mean."""
    moments = np.diff(below)
    middle = float(np.dot(moments, points) / below[-1])
    points -= middle
    moments *= points
    total = _prefix(moments)
    moments *= points
    return PrefixSums(below, total, _prefix(moments)), middle


def _prefix(values: Floats) -> Floats:
    sums = np.empty(len(values) + 1)
    sums[0] = 0
    np.cumsum(values, out=sums[1:])
    return sums


def _cuts(points: Floats, table: PrefixSums, runs: int) -> Integers:
    """Where to cut the table into at most ``runs`` runs: their bounds.

    Every entry is a run where these are few. Otherwise a third of the cuts follow the spacing of a
    good quantiser, a third are even, so that no run spans a gap, and a third have as many entries
    between them, however far out others lie.
    """
    if len(points) <= runs:
        return np.arange(len(points) + 1)
    shares = np.arange(runs // 3) / (runs // 3)
    even = points[0] + shares * (points[-1] - points[0])
    edges = np.concatenate([even, _quantiles(points, table, shares)])
    ranks = (shares * len(points)).astype(np.intp)
    return np.unique(np.concatenate([np.searchsorted(points, edges), ranks, [len(points)]]))


def _quantiles(points: Floats, table: PrefixSums, shares: Floats) -> Floats:
    """Quantiles of the cube root of the values' density, the best spacing of centroids.

    Panter and Dite 1951; see Gersho and Gray, Vector Quantization, section 5.6.
    """
    edges = np.linspace(points[0], points[-1], _DENSITY + 1)
    density = np.diff(table.count[np.searchsorted(points, edges)])
    spacing = np.cbrt(density).cumsum()
    return edges[np.searchsorted(spacing / spacing[-1], shares)]
