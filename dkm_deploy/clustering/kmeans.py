"""Plain k-means and hard assignment: exact distances, in blocks, the same result on every run."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dkm_deploy.clustering.optimal import Table, optimal_runs

_BLOCK = 1 << 22  # distances held at a time: 32 MiB of float64
_BINS = 1 << 14  # of the histogram that estimates a density
_RUNS = 1024  # of sorted scalars, that the exact start works on


def kmeans(vectors: Tensor, clusters: int, *, iterations: int = 100, seed: int = 0) -> Tensor:
    """Centroids of each group, by Lloyd's algorithm.

    Scalars start from the optimal clusters of a table of about 1,024 runs of the sorted values,
    and stay sorted. Vectors start from k-means++
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
    found = [_group(group.double(), clusters, iterations, seed) for group in vectors.detach()]
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
        return _scalars(vectors, clusters, iterations)
    return _vectors(vectors, clusters, iterations, seed)


def _scalars(values: Tensor, clusters: int, iterations: int) -> Tensor:
    """Optimal clusters of a table of the values, then Lloyd on the sorted values themselves.

    With prefix sums of the sorted values an iteration costs ``O(clusters * log(count))``.
    """
    ordered = values[:, 0].sort().values
    distinct = torch.unique_consecutive(ordered)
    if len(distinct) <= clusters:
        return _padded(distinct[:, None], clusters)
    sums = _prefix(ordered)
    centroids = _optimal(ordered, _cuts(ordered, distinct), clusters)
    for _ in range(iterations):
        bounds = torch.searchsorted(ordered, (centroids[1:] + centroids[:-1]) / 2)
        bounds = torch.cat([bounds.new_zeros(1), bounds, bounds.new_full((1,), len(ordered))])
        counts = bounds.diff()
        means = sums[bounds].diff() / counts.clamp(min=1)
        updated = torch.where(counts > 0, means, centroids)
        if torch.equal(updated, centroids):
            break
        centroids = updated
    return centroids[:, None]


def _cuts(ordered: Tensor, distinct: Tensor) -> Tensor:
    """Where to cut the sorted values into about ``_RUNS`` runs: ``(runs + 1,)`` positions.

    Every run is one distinct value where these are few. Otherwise half of the cuts follow the
    spacing of a good quantiser and half are even, so that no run spans a gap.
    """
    if len(distinct) <= _RUNS:
        cuts = torch.searchsorted(ordered, distinct)
    else:
        steps = torch.arange(_RUNS // 2, device=ordered.device, dtype=ordered.dtype)
        steps = steps / len(steps)
        even = ordered[0] + steps * (ordered[-1] - ordered[0])
        edges = torch.cat([even, _quantiles(ordered, steps)]).sort().values
        cuts = torch.searchsorted(ordered, edges)
    end = cuts.new_full((1,), len(ordered))
    bounds: Tensor = torch.unique_consecutive(torch.cat([cuts.new_zeros(1), cuts, end]))
    return bounds


def _quantiles(ordered: Tensor, shares: Tensor) -> Tensor:
    """Quantiles of the cube root of the values' density, the best spacing of centroids.

    Panter and Dite 1951; see Gersho and Gray, Vector Quantization, section 5.6.
    """
    low, high = ordered[0].item(), ordered[-1].item()
    spacing = torch.histc(ordered, _BINS, low, high).pow(1 / 3).cumsum(0)
    bins = torch.searchsorted(spacing / spacing[-1], shares)
    return torch.add(torch.full_like(shares, low), bins, alpha=(high - low) / _BINS)


def _optimal(ordered: Tensor, cuts: Tensor, clusters: int) -> Tensor:
    """Means of the optimal clusters of the runs between ``cuts``; ``(clusters,)``, sorted."""
    middle = ordered.mean()
    centred = ordered - middle
    sums = _prefix(centred)[cuts]
    columns = (cuts, sums, _prefix(centred.square())[cuts])
    table = Table(*(column.cpu().double().numpy() for column in columns))
    bounds = torch.from_numpy(optimal_runs(table, clusters)).to(cuts.device)
    means = sums[bounds].diff() / cuts[bounds].diff() + middle
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
