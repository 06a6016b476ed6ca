"""K-means of vectors: k-means++, then Lloyd with distances held block by block, in float64."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

_BLOCK = 1 << 22  # distances held at a time: 32 MiB of float64


def cluster_vectors(
    vectors: Tensor, clusters: int, iterations: int, seed: int, masses: Tensor | None = None
) -> Tensor:
    """Lloyd's algorithm from k-means++.

    Args:
        vectors: float64, ``(count, dim)``.
        clusters: centroids to find.
        iterations: of Lloyd's algorithm, at most.
        seed: of k-means++.
        masses: how much each squared difference counts, float64 ``(count, dim)``, above 0; None
            is 1 each.

    Returns:
        float64 ``(clusters, dim)``; the last distinct vector repeated where there are fewer.
    """
    distinct = torch.unique(vectors, dim=0)
    if len(distinct) <= clusters:
        return torch.cat([distinct, distinct[-1:].expand(clusters - len(distinct), -1)])
    centroids = _plus_plus(vectors, clusters, seed, masses)
    for _ in range(iterations):
        updated = _means(vectors, nearest_vectors(vectors, centroids, masses), centroids, masses)
        if torch.equal(updated, centroids):
            break
        centroids = updated
    return centroids


def nearest_vectors(vectors: Tensor, centroids: Tensor, masses: Tensor | None = None) -> Tensor:
    """The nearest of ``centroids`` ``(clusters, dim)`` for each of ``(count, dim)``; int64."""
    size = max(1, _BLOCK // len(centroids))
    return torch.cat([gaps.argmin(1) for gaps in _gaps(vectors, centroids, masses, size)])


def _gaps(vectors: Tensor, centroids: Tensor, masses: Tensor | None, size: int) -> Iterator[Tensor]:
    """Squared distances of ``size`` vectors at a time, up to a constant for each vector."""
    if masses is None:
        for block in torch.split(vectors, size):
            exact = torch.cdist(block, centroids, compute_mode="donot_use_mm_for_euclid_dist")
            yield exact.square()
        return
    squares = centroids.square().T
    for block, mass in zip(torch.split(vectors, size), torch.split(masses, size), strict=True):
        yield mass @ squares - 2 * (mass * block) @ centroids.T


def _means(vectors: Tensor, nearest: Tensor, centroids: Tensor, masses: Tensor | None) -> Tensor:
    """Mean of the vectors of each centroid; one without vectors stays where it is."""
    masses = torch.ones_like(vectors) if masses is None else masses
    counts = torch.zeros_like(centroids).index_add_(0, nearest, masses)
    sums = torch.zeros_like(centroids).index_add_(0, nearest, masses * vectors)
    return torch.where(counts > 0, sums / counts.clamp(min=1), centroids)


def _plus_plus(vectors: Tensor, clusters: int, seed: int, masses: Tensor | None) -> Tensor:
    generator = torch.Generator(vectors.device).manual_seed(seed)
    first = torch.randint(len(vectors), (1,), generator=generator, device=vectors.device)
    chosen = vectors[first]
    gap = _squared(vectors - chosen, masses)
    for _ in range(clusters - 1):
        # Sampling by inverse transform: torch.multinomial takes at most 2**24 candidates.
        point = torch.rand(1, generator=generator, device=gap.device, dtype=gap.dtype)
        cumulative = gap.cumsum(0)
        index = torch.searchsorted(cumulative, point * cumulative[-1]).clamp(max=len(gap) - 1)
        chosen = torch.cat([chosen, vectors[index]])
        gap = torch.minimum(gap, _squared(vectors - vectors[index], masses))
    return chosen


def _squared(differences: Tensor, masses: Tensor | None) -> Tensor:
    squares = differences.square()
    return (squares if masses is None else masses * squares).sum(1)
