"""One-dimensional k-means: the optimum of a table of the values, then Lloyd on the table."""

from __future__ import annotations

import torch
from torch import Tensor

from dkm_deploy.clustering.optimal import Table, optimal_runs

_SORTED = 1 << 17  # scalars up to which every distinct value is an entry of the table
_BINS = 1 << 16  # of the table of more scalars: each far narrower than one of 256 clusters
_FILLED = 1024  # bins that must hold values, for the others to be narrow enough
_DENSITY = 1 << 14  # bins of the histogram that estimates a density
_RUNS = 4096  # of the table, that the exact start works on: within 1e-6 of the optimum at 4 bits


def cluster_scalars(
    values: Tensor, clusters: int, iterations: int, masses: Tensor | None = None
) -> Tensor:
    """Optimal clusters of runs of a table of the values, then Lloyd on the table.

    With prefix sums of the table an iteration costs ``O(clusters * log(entries))``.

    Args:
        values: floating, ``(count,)``.
        clusters: centroids to find.
        iterations: of Lloyd's algorithm, at most.
        masses: how much each value counts, float64 ``(count,)``, at least 1; None is 1 each.

    Returns:
        float64 ``(clusters,)``, sorted; the last value repeated where there are fewer.
    """
    points, counts = _table(values, masses)
    if len(points) <= clusters:
        return _padded(points, clusters)
    number, total = _prefix(counts), _prefix(counts * points)
    centroids = _optimal(points, counts, _cuts(points, counts, _RUNS), clusters)
    for _ in range(iterations):
        bounds = torch.searchsorted(points, (centroids[1:] + centroids[:-1]) / 2)
        bounds = torch.cat([bounds.new_zeros(1), bounds, bounds.new_full((1,), len(points))])
        members = number[bounds].diff()
        means = total[bounds].diff() / members.clamp(min=1)
        updated = torch.where(members > 0, means, centroids)
        if torch.equal(updated, centroids):
            break
        centroids = updated
    return centroids


def nearest_scalars(values: Tensor, centroids: Tensor) -> Tensor:
    """The nearest of ``centroids`` ``(clusters,)`` for each of ``values`` ``(count,)``; int64."""
    ordered, order = centroids.sort(stable=True)
    return order[torch.bucketize(values, (ordered[1:] + ordered[:-1]) / 2)]


def _table(values: Tensor, masses: Tensor | None) -> tuple[Tensor, Tensor]:
    """Sorted float64 values and how much each of them counts.

    Of many values the means of narrow bins, without a sort; of few, or where most bins are empty
    because a value lies far out, every distinct value.
    """
    if len(values) > _SORTED:
        points, counts = _binned(values, masses)
        if len(points) >= _FILLED:
            return points, counts
    if masses is None:
        distinct, numbers = torch.unique(values.double(), return_counts=True)
        return distinct, numbers.double()
    distinct, place = torch.unique(values.double(), return_inverse=True)
    return distinct, torch.zeros_like(distinct).index_add_(0, place, masses)


def _binned(values: Tensor, masses: Tensor | None) -> tuple[Tensor, Tensor]:
    low, high = values.aminmax()
    scale = _BINS / (high - low).double().clamp(min=torch.finfo(torch.float64).tiny)
    place = (values - low).mul_(scale).to(torch.int32).clamp_(max=_BINS - 1)
    sums = values.new_zeros(_BINS, dtype=torch.float64)
    ones = sums.new_ones(1).expand(len(place))
    counts = torch.zeros_like(sums).index_add_(0, place, ones if masses is None else masses)
    sums.index_add_(0, place, values.double() if masses is None else masses * values)
    filled = counts > 0
    return sums[filled] / counts[filled], counts[filled]


def _cuts(points: Tensor, counts: Tensor, runs: int) -> Tensor:
    """Where to cut the table into about ``runs`` runs, or fewer: their bounds.

    Every entry is a run where these are few. Otherwise half of the cuts follow the spacing of a
    good quantiser and half are even, so that no run spans a gap.
    """
    if len(points) <= runs:
        return torch.arange(len(points) + 1, device=points.device)
    steps = torch.arange(runs // 2, device=points.device, dtype=points.dtype) / (runs // 2)
    even = points[0] + steps * (points[-1] - points[0])
    edges = torch.cat([even, _quantiles(points, counts, steps)]).sort().values
    ends = torch.tensor([0, len(points)], device=points.device)
    bounds: Tensor = torch.unique(torch.cat([torch.searchsorted(points, edges), ends]))
    return bounds


def _quantiles(points: Tensor, counts: Tensor, shares: Tensor) -> Tensor:
    """Quantiles of the cube root of the values' density, the best spacing of centroids.

    Panter and Dite 1951; see Gersho and Gray, Vector Quantization, section 5.6.
    """
    low, width = points[0], (points[-1] - points[0]) / _DENSITY
    place = ((points - low) / width).long().clamp_(max=_DENSITY - 1)
    density = points.new_zeros(_DENSITY).index_add_(0, place, counts)
    spacing = density.pow(1 / 3).cumsum(0)
    return low + width * torch.searchsorted(spacing / spacing[-1], shares)


def _optimal(points: Tensor, counts: Tensor, cuts: Tensor, clusters: int) -> Tensor:
    """Means of the optimal clusters of the runs between ``cuts``; ``(clusters,)``, sorted."""
    middle = (counts * points).sum() / counts.sum()
    centred = points - middle
    moments = (counts, counts * centred, counts * centred.square())
    number, total, square = (_prefix(moment)[cuts] for moment in moments)
    table = Table(*(column.cpu().numpy() for column in (number, total, square)))
    bounds = torch.from_numpy(optimal_runs(table, clusters)).to(cuts.device)
    means = total[bounds].diff() / number[bounds].diff() + middle
    return _padded(means, clusters)


def _prefix(values: Tensor) -> Tensor:
    return torch.cat([values.new_zeros(1), values.cumsum(0)])


def _padded(distinct: Tensor, clusters: int) -> Tensor:
    """``distinct`` values, the last one repeated to make ``clusters`` of them."""
    return torch.cat([distinct, distinct[-1:].expand(clusters - len(distinct))])
