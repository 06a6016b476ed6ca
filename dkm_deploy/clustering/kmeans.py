"""Plain k-means and hard assignment: exact distances, in blocks, the same result on every run."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dkm_deploy.clustering.optimal import Table, optimal_runs

_BLOCK = 1 << 22  # distances held at a time: 32 MiB of float64
_SORTED = 1 << 17  # scalars up to which every distinct value is an entry of the table
_BINS = 1 << 16  # of the table of more scalars: each far narrower than one of 256 clusters
_DENSITY = 1 << 14  # bins of the histogram that estimates a density
_RUNS = 1024  # of the table, that the exact start works on, at least
_RUNS_EACH = 8  # and at least so many a cluster


def kmeans(vectors: Tensor, clusters: int, *, iterations: int = 100, seed: int = 0) -> Tensor:
    """Centroids of each group, by Lloyd's algorithm.

    Scalars start from the optimal clusters of 1,024 or more runs of a table of the values, and
    stay sorted. Vectors start from k-means++
    (Arthur and Vassilvitskii 2007) with a fixed seed. A group with no more than ``clusters``
    distinct vectors gets just these.

    Args:
        vectors: floating, ``(groups, count, dim)``, finite.
        clusters: centroids a group.
        iterations: of Lloyd's algorithm, at most.
        seed: of k-means++.

    Returns:
        ``(groups, clusters, dim)`` in the dtype of ``vectors``.
    """
    wide = vectors.detach().to(torch.promote_types(vectors.dtype, torch.float32))
    found = [_group(group, clusters, iterations, seed) for group in wide]
    return torch.stack(found).to(vectors.dtype)


def assign(vectors: Tensor, centroids: Tensor) -> Tensor:
    """The nearest centroid of each vector, the lower index in a tie.

    Args:
        vectors: ``(groups, count, dim)``.
        centroids: ``(groups, clusters, dim)``.

    Returns:
        int64, ``(groups, count)``.
    """
    return torch.stack(
        [
            _nearest(v.double(), c.double())
            for v, c in zip(vectors.detach(), centroids.detach(), strict=True)
        ]
    )


def _nearest(vectors: Tensor, centroids: Tensor) -> Tensor:
    if vectors.shape[-1] == 1:
        values, order = centroids[:, 0].sort(stable=True)
        return order[torch.bucketize(vectors[:, 0], (values[1:] + values[:-1]) / 2)]
    parts = [
        _squared_distances(block, centroids).argmin(1) for block in _blocks(vectors, centroids)
    ]
    return torch.cat(parts)


def _group(vectors: Tensor, clusters: int, iterations: int, seed: int) -> Tensor:
    if vectors.shape[-1] == 1:
        return _scalars(vectors[:, 0], clusters, iterations)[:, None]
    return _vectors(vectors.double(), clusters, iterations, seed)


def _scalars(values: Tensor, clusters: int, iterations: int) -> Tensor:
    """Optimal clusters of runs of a table of the values, then Lloyd on the table.

    With prefix sums of the table an iteration costs ``O(clusters * log(entries))``.
    """
    points, counts = _table(values)
    if len(points) <= clusters:
        return _padded(points[:, None], clusters)[:, 0]
    number, total = _prefix(counts), _prefix(counts * points)
    runs = max(_RUNS, _RUNS_EACH * clusters)
    centroids = _optimal(points, counts, _cuts(points, counts, runs), clusters)
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


def _table(values: Tensor) -> tuple[Tensor, Tensor]:
    """Sorted float64 values and how many there are of each.

    Of many values the means of narrow bins, without a sort; of few, or where most bins are empty
    because a value lies far out, every distinct value.
    """
    if len(values) > _SORTED:
        points, counts = _binned(values)
        if len(points) >= _RUNS:
            return points, counts
    distinct, numbers = torch.unique(values.double(), return_counts=True)
    return distinct, numbers.double()


def _binned(values: Tensor) -> tuple[Tensor, Tensor]:
    low, high = values.aminmax()
    scale = _BINS / (high - low).double().clamp(min=torch.finfo(torch.float64).tiny)
    place = (values - low).mul_(scale).to(torch.int32).clamp_(max=_BINS - 1)
    sums = values.new_zeros(_BINS, dtype=torch.float64)
    counts = torch.zeros_like(sums).index_add_(0, place, sums.new_ones(1).expand(len(place)))
    sums.index_add_(0, place, values.double())
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
    return _padded(means[:, None], clusters)[:, 0]


def _prefix(values: Tensor) -> Tensor:
    return torch.cat([values.new_zeros(1), values.cumsum(0)])


def _vectors(vectors: Tensor, clusters: int, iterations: int, seed: int) -> Tensor:
    distinct = torch.unique(vectors, dim=0)
    if len(distinct) <= clusters:
        return _padded(distinct, clusters)
    centroids = _plus_plus(vectors, clusters, seed)
    for _ in range(iterations):
        nearest = _nearest(vectors, centroids)
        counts = torch.bincount(nearest, minlength=clusters)
        sums = torch.zeros_like(centroids).index_add_(0, nearest, vectors)
        updated = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centroids)
        if torch.equal(updated, centroids):
            break
        centroids = updated
    return centroids


def _plus_plus(vectors: Tensor, clusters: int, seed: int) -> Tensor:
    generator = torch.Generator(vectors.device).manual_seed(seed)
    first = torch.randint(len(vectors), (1,), generator=generator, device=vectors.device)
    chosen = vectors[first]
    gap = (vectors - chosen).square().sum(1)
    for _ in range(clusters - 1):
        # Sampling by inverse transform: torch.multinomial takes at most 2**24 candidates.
        point = torch.rand(1, generator=generator, device=gap.device, dtype=gap.dtype)
        cumulative = gap.cumsum(0)
        index = torch.searchsorted(cumulative, point * cumulative[-1]).clamp(max=len(gap) - 1)
        chosen = torch.cat([chosen, vectors[index]])
        gap = torch.minimum(gap, (vectors - vectors[index]).square().sum(1))
    return chosen


def _padded(distinct: Tensor, clusters: int) -> Tensor:
    """``distinct`` rows, the last one repeated to make ``clusters`` rows."""
    return torch.cat([distinct, distinct[-1:].expand(clusters - len(distinct), -1)])


def _squared_distances(vectors: Tensor, centroids: Tensor) -> Tensor:
    return torch.cdist(vectors, centroids, compute_mode="donot_use_mm_for_euclid_dist").square()


def _blocks(vectors: Tensor, centroids: Tensor) -> Iterator[Tensor]:
    size = max(1, _BLOCK // len(centroids))
    return (vectors[start : start + size] for start in range(0, len(vectors), size))
