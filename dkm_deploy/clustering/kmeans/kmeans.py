"""K-means, plain or weighted, and hard assignment: the same result on every run."""

from __future__ import annotations

import torch
from torch import Tensor

from dkm_deploy.clustering.kmeans.scalar import cluster_scalars, nearest_scalars
from dkm_deploy.clustering.kmeans.vector import cluster_vectors, nearest_vectors

_LEAST = 1e-6  # of the mean weight: a value of weight 0 counts as this


def kmeans(
    vectors: Tensor,
    clusters: int,
    *,
    weights: Tensor | None = None,
    iterations: int = 100,
    seed: int = 0,
) -> Tensor:
    """Centroids of each group.

    Those of scalars are the optimum, near enough, and sorted. Vectors: k-means++
    (Arthur and Vassilvitskii 2007) and breathing k-means (Fritzke 2020) on a sample, then Lloyd's
    algorithm. A group with no more than ``clusters`` distinct vectors gets just these.

    Args:
        vectors: floating, ``(groups, count, dim)``, finite.
        clusters: centroids a group.
        weights: of the squared error of each value, shaped as ``vectors``, finite and not
            negative; only their ratios within a group count. A weight of 0 counts as a millionth
            of the mean, so that every value has a nearest centroid; a group of zeros is plain.
        iterations: of Lloyd's algorithm for vectors, at most.
        seed: of k-means++ and of the sample that the start is for.

    Returns:
        ``(groups, clusters, dim)`` in the dtype of ``vectors``.
    """
    wide = vectors.detach().to(torch.promote_types(vectors.dtype, torch.float32))
    found = [
        cluster_scalars(group[:, 0], clusters, _column(masses))[:, None]
        if group.shape[-1] == 1
        else cluster_vectors(group.double(), clusters, iterations, seed, masses)
        for group, masses in zip(wide, _masses(wide, weights), strict=True)
    ]
    return torch.stack(found).to(vectors.dtype)


def assign(vectors: Tensor, centroids: Tensor, weights: Tensor | None = None) -> Tensor:
    """The nearest centroid of each vector, the lower index in a tie.

    Args:
        vectors: ``(groups, count, dim)``.
        centroids: ``(groups, clusters, dim)``.
        weights: of the squared differences, as :func:`kmeans` takes them; those of scalars change
            nothing.

    Returns:
        int64, ``(groups, count)``.
    """
    if vectors.shape[-1] == 1:
        pairs = zip(vectors.detach()[..., 0], centroids.detach()[..., 0], strict=True)
        return torch.stack([nearest_scalars(v, c) for v, c in pairs])
    groups = zip(vectors.detach(), centroids.detach(), _masses(vectors, weights), strict=True)
    return torch.stack([nearest_vectors(v.double(), c.double(), m) for v, c, m in groups])


def members(nearest: Tensor, centroids: Tensor) -> Tensor:
    """How many vectors each centroid has, ``(groups, clusters)`` in the dtype of ``centroids``.

    Args:
        nearest: of :func:`assign`, int64 ``(groups, count)``.
        centroids: ``(groups, clusters, dim)``.
    """
    ones = torch.ones_like(nearest, dtype=centroids.dtype)
    return torch.zeros_like(centroids[..., 0]).scatter_add_(1, nearest, ones)


def _masses(vectors: Tensor, weights: Tensor | None) -> list[Tensor | None]:
    """The weights of each group, float64 and at least 1; None where all count alike."""
    if weights is None:
        return [None] * len(vectors)
    return [_mass(group.detach().double()) for group in weights]


def _mass(weights: Tensor) -> Tensor | None:
    mean = weights.mean()
    if not mean > 0:
        return None
    above = weights + _LEAST * mean
    return above / above.min()


def _column(masses: Tensor | None) -> Tensor | None:
    return None if masses is None else masses[:, 0]
