"""K-means of vectors in float64: a good start on a sample, then Lloyd's algorithm on all.

Of few centroids several starts are tried, for optima differ much; that of many is breathed on.

Breathing (Fritzke 2020, arXiv 2006.15666): some centroids are added where the error is largest and
as many taken away where they are missed least, with a few iterations of Lloyd's algorithm after
both, as long as the error falls.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

_BLOCK = 1 << 22  # distances held at a time: 32 MiB of float64
_SAMPLE = 1 << 14  # vectors that the start is for
_TRIED, _TRIAL = 160, 30  # centroids of all starts together, and iterations of each
_BREATH = 5  # centroids that come and go at first
_SETTLE = 10  # iterations after that
_SHIFT = 0.01  # of the usual distance: how far from an old centroid a new one starts


def cluster_vectors(
    vectors: Tensor, clusters: int, iterations: int, seed: int, masses: Tensor | None = None
) -> Tensor:
    """Lloyd's algorithm from the best start by k-means++ and breathing k-means on a sample.

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
    sample, counts = vectors[drawn], None if masses is None else masses[drawn]
    if len(torch.unique(sample, dim=0)) <= clusters:
        distinct = torch.unique(vectors, dim=0)
        if len(distinct) <= clusters:
            return torch.cat([distinct, distinct[-1:].expand(clusters - len(distinct), -1)])
    starts = [
        _lloyd(sample, _plus_plus(sample, clusters, generator, counts), _TRIAL, counts)
        for _ in range(max(1, _TRIED // clusters))
    ]
    best = min(starts, key=lambda centroids: _error(sample, centroids, counts))
    return _lloyd(vectors, _breathe(sample, best, counts), iterations, masses)


def _breathe(vectors: Tensor, centroids: Tensor, masses: Tensor | None) -> Tensor:
    """Better centroids, as many; takes settled ones."""
    best, least = centroids, _error(vectors, centroids, masses)
    breath = min(_BREATH, len(best) - 1)
    while breath:
        more = _lloyd(vectors, _breathe_in(vectors, centroids, breath, masses), _SETTLE, masses)
        centroids = _lloyd(vectors, _breathe_out(vectors, more, breath, masses), _SETTLE, masses)
        error = _error(vectors, centroids, masses)
        if error < least:
            best, least = centroids, error
        else:
            breath -= 1
    return best


def _breathe_in(vectors: Tensor, centroids: Tensor, count: int, masses: Tensor | None) -> Tensor:
    """With one more beside each of those whose vectors have the largest error."""
    nearest, least, _ = _two_nearest(vectors, centroids, masses)
    errors = torch.zeros_like(centroids[:, 0]).index_add_(0, nearest, least)
    largest = errors.topk(count).indices
    shift = (least.mean() / vectors.shape[1]).sqrt() * _SHIFT
    return torch.cat([centroids, centroids[largest] + shift])


def _breathe_out(vectors: Tensor, centroids: Tensor, count: int, masses: Tensor | None) -> Tensor:
    """Without those that are missed least, though not two neighbours at a time."""
    nearest, least, second = _two_nearest(vectors, centroids, masses)
    missed = torch.zeros_like(centroids[:, 0]).index_add_(0, nearest, second - least)
    neighbours = torch.cdist(centroids, centroids).fill_diagonal_(torch.inf).argmin(1).tolist()
    gone, stay = set[int](), set[int]()
    for place in missed.argsort().tolist():
        if place not in stay and len(gone) < count:
            gone.add(place)
            stay.add(neighbours[place])
    rest = [place for place in range(len(centroids)) if place not in gone]
    return centroids[rest]


def _two_nearest(
    vectors: Tensor, centroids: Tensor, masses: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The nearest centroid of each vector, and the squared distances to it and to the second."""
    constant = _squared(vectors, masses)
    two = [gaps.topk(2, dim=1, largest=False) for gaps in _gaps(vectors, centroids, masses)]
    values = torch.cat([values for values, _ in two]) + constant[:, None]
    nearest = torch.cat([places[:, 0] for _, places in two])
    return nearest, values[:, 0].clamp(min=0), values[:, 1].clamp(min=0)


def _lloyd(vectors: Tensor, centroids: Tensor, iterations: int, masses: Tensor | None) -> Tensor:
    for _ in range(iterations):
        updated = _means(vectors, _near(vectors, centroids, masses), centroids, masses)
        if torch.equal(updated, centroids):
            break
        centroids = updated
    return centroids


def _error(vectors: Tensor, centroids: Tensor, masses: Tensor | None) -> float:
    """The squared error, up to a constant."""
    least = [gaps.amin(1).sum() for gaps in _gaps(vectors, centroids, masses)]
    return float(torch.stack(least).sum())


def nearest_vectors(vectors: Tensor, centroids: Tensor, masses: Tensor | None = None) -> Tensor:
    """The nearest of ``centroids`` ``(clusters, dim)`` for each of ``(count, dim)``; int64."""
    if masses is not None:
        return _near(vectors, centroids, masses)
    blocks = torch.split(vectors, max(1, _BLOCK // len(centroids)))
    exact = "donot_use_mm_for_euclid_dist"  # ties go to the lower index
    return torch.cat([torch.cdist(b, centroids, compute_mode=exact).argmin(1) for b in blocks])


def _near(vectors: Tensor, centroids: Tensor, masses: Tensor | None) -> Tensor:
    """As :func:`nearest_vectors`, but that rounding decides where two are as near."""
    return torch.cat([gaps.argmin(1) for gaps in _gaps(vectors, centroids, masses)])


def _gaps(vectors: Tensor, centroids: Tensor, masses: Tensor | None) -> Iterator[Tensor]:
    """Squared distances block by block, up to a constant for each vector."""
    size = max(1, _BLOCK // len(centroids))
    squares = centroids.square().T
    if masses is None:
        for block in torch.split(vectors, size):
            yield torch.addmm(squares.sum(0), block, centroids.T, alpha=-2)
        return
    for block, mass in zip(torch.split(vectors, size), torch.split(masses, size), strict=True):
        yield mass @ squares - 2 * (mass * block) @ centroids.T


def _means(vectors: Tensor, nearest: Tensor, centroids: Tensor, masses: Tensor | None) -> Tensor:
    """Mean of the vectors of each centroid; one without vectors stays where it is."""
    masses = torch.ones_like(vectors) if masses is None else masses
    counts = torch.zeros_like(centroids).index_add_(0, nearest, masses)
    sums = torch.zeros_like(centroids).index_add_(0, nearest, masses * vectors)
    return torch.where(counts > 0, sums / counts.clamp(min=1), centroids)


def _plus_plus(
    vectors: Tensor, clusters: int, generator: torch.Generator, masses: Tensor | None
) -> Tensor:
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
