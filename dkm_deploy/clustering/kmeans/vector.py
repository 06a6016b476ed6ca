"""K-means of vectors in float64: searched for on few means, then on more of them, then on all.

The means are of small cells, with their masses. Optima of few centroids are many and differ much,
so that several are tried, and the best of them go on to all vectors.

Each starts with k-means++ and goes on with breathing k-means (Fritzke 2020, arXiv 2006.15666): some
centroids are added where the error is largest and as many taken away where they are missed least,
with a few iterations of Lloyd's algorithm after both, as long as the error falls.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dkm_deploy.clustering.kmeans.lloyd import gaps, lloyd, nearest, squared_lengths, two_nearest
from dkm_deploy.clustering.kmeans.vector_cells import cells, merge_equal

_SAMPLE = 1 << 17  # vectors that the search is for, at most
_COARSE, _FINE = 32, 1 << 14  # cells for each centroid at first, and of the second level
_TRIED = (40, 12, 4)  # of up to 16 centroids, at each level; fewer of more, which take longer,
_MANY, _LEAST = 1 << 16, 0.2  # and of groups with fewer vectors than this, down to a fifth
_RANKED = (20, 30, 50)  # iterations before they are compared, within the second level and on all
_BREATH = 5  # centroids that come and go at first
_SETTLE = 10  # iterations after that
_SHIFT = 0.01  # of the usual distance: how far from an old centroid a new one starts
_EXACT_BLOCK = 1 << 22  # distances of assignment held at a time: 32 MiB of float64


def cluster_vectors(
    vectors: Tensor, clusters: int, iterations: int, seed: int, masses: Tensor | None = None
) -> Tensor:
    """Lloyd's algorithm from the best that k-means++ and breathing k-means find on cells.

    Args:
        vectors: float64, ``(count, dim)``.
        clusters: centroids to find.
        iterations: of Lloyd's algorithm, at most.
        seed: of the sample and of k-means++.
        masses: how much each squared difference counts, float64 ``(count, dim)``, above 0; None
            is 1 each.

    Returns:
        float64 ``(clusters, dim)``; the last distinct vector repeated where there are fewer.
    """
    generator = torch.Generator(vectors.device).manual_seed(seed)
    drawn = torch.randperm(len(vectors), generator=generator, device=vectors.device)[:_SAMPLE]
    sample = merge_equal(vectors[drawn], None if masses is None else masses[drawn])
    if len(sample[0]) <= clusters:
        distinct = torch.unique(vectors, dim=0)
        if len(distinct) <= clusters:
            return torch.cat([distinct, distinct[-1:].expand(clusters - len(distinct), -1)])
    share = max(_LEAST, min(1.0, len(vectors) / _MANY)) * min(1.0, 16 / clusters)
    first, second, third = (max(1, int(tried * share)) for tried in _TRIED)
    points = cells(*sample, min(_COARSE * clusters, _FINE))
    found = [_breathe(*points, _plus_plus(*points, clusters, generator)) for _ in range(first)]
    points = cells(*sample, _FINE)
    found = _rank_starts(found, *points, _RANKED[0])[:second]
    found = _rank_starts(found, *points, _RANKED[1])[:third]
    found[0] = _breathe(*points, found[0])
    found = _rank_starts(found, *sample, _RANKED[2])
    return lloyd(vectors, masses, found[0], iterations)


def _rank_starts(
    found: list[Tensor], vectors: Tensor, masses: Tensor, iterations: int
) -> list[Tensor]:
    """After some iterations of Lloyd's algorithm, the best first."""
    settled = [lloyd(vectors, masses, centroids, iterations) for centroids in found]
    return sorted(settled, key=lambda centroids: _error(vectors, masses, centroids))


def _breathe(vectors: Tensor, masses: Tensor, centroids: Tensor) -> Tensor:
    """Better centroids, as many."""
    centroids = lloyd(vectors, masses, centroids, _SETTLE)
    best, least = centroids, _error(vectors, masses, centroids)
    breath = min(_BREATH, len(best) - 1)
    while breath:
        more = _breathe_in(vectors, masses, centroids, breath)
        fewer = _breathe_out(vectors, masses, lloyd(vectors, masses, more, _SETTLE), breath)
        centroids = lloyd(vectors, masses, fewer, _SETTLE)
        error = _error(vectors, masses, centroids)
        if error < least:
            best, least = centroids, error
        else:
            breath -= 1
    return best


def _breathe_in(vectors: Tensor, masses: Tensor, centroids: Tensor, count: int) -> Tensor:
    """With one more beside each of those whose vectors have the largest error."""
    places, least, _ = two_nearest(vectors, masses, centroids)
    errors = torch.zeros_like(centroids[:, 0]).index_add_(0, places, least)
    largest = errors.topk(count).indices
    shift = (least.sum() / masses.expand_as(vectors).sum()).sqrt() * _SHIFT
    return torch.cat([centroids, centroids[largest] + shift])


def _breathe_out(vectors: Tensor, masses: Tensor, centroids: Tensor, count: int) -> Tensor:
    """Without those that are missed least, though not two neighbours at a time."""
    places, least, second = two_nearest(vectors, masses, centroids)
    missed = torch.zeros_like(centroids[:, 0]).index_add_(0, places, second - least)
    neighbours = torch.cdist(centroids, centroids).fill_diagonal_(torch.inf).argmin(1).tolist()
    gone, stay = set[int](), set[int]()
    for place in missed.argsort().tolist():
        if place not in stay and len(gone) < count:
            gone.add(place)
            stay.add(neighbours[place])
    rest = [place for place in range(len(centroids)) if place not in gone]
    return centroids[rest]


def _error(vectors: Tensor, masses: Tensor | None, centroids: Tensor) -> float:
    """The squared error, up to a constant."""
    least = [block.amin(0).sum() for block in gaps(vectors, masses, centroids)]
    return float(torch.stack(least).sum())


def nearest_vectors(vectors: Tensor, centroids: Tensor, masses: Tensor | None = None) -> Tensor:
    """The nearest of ``centroids`` ``(clusters, dim)`` for each of ``(count, dim)``; int64."""
    if masses is not None:
        return nearest(vectors, masses, centroids)
    blocks = torch.split(vectors, max(1, _EXACT_BLOCK // len(centroids)))
    exact = "donot_use_mm_for_euclid_dist"  # ties go to the lower index
    return torch.cat([torch.cdist(b, centroids, compute_mode=exact).argmin(1) for b in blocks])


def _plus_plus(
    vectors: Tensor, masses: Tensor | None, clusters: int, generator: torch.Generator
) -> Tensor:
    first = torch.randint(len(vectors), (1,), generator=generator, device=vectors.device)
    chosen = vectors[first]
    gap = squared_lengths(vectors - chosen, masses)
    for _ in range(clusters - 1):
        # Sampling by inverse transform: torch.multinomial takes at most 2**24 candidates.
        point = torch.rand(1, generator=generator, device=gap.device, dtype=gap.dtype)
        cumulative = gap.cumsum(0)
        index = torch.searchsorted(cumulative, point * cumulative[-1]).clamp(max=len(gap) - 1)
        chosen = torch.cat([chosen, vectors[index]])
        gap = torch.minimum(gap, squared_lengths(vectors - vectors[index], masses))
    return chosen
