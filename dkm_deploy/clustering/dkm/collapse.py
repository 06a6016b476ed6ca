"""Centroids that have run together: find them, send them off again, foresee them.

Soft k-means merges all centroids where tau is above twice the variance, and some of them far below
that; because centroids carry over from step to step, the merging adds up over a training run.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dkm_deploy.clustering.kmeans.kmeans import assign, members

_NEAR = 1e-3  # of a standard deviation: far below any useful distance of 256 centroids
_SETTLE = 30  # iterations after which a start that will merge has merged
_SAMPLE = 1 << 13  # vectors of a group that a forecast looks at
_OWNED = 8  # of them by a centroid that it judges
_WORSE = 1.5  # times the squared error of k-means: what a forecast calls a collapse


def duplicates(centroids: Tensor, deviation: Tensor) -> Tensor:
    """Which centroids lie on another one before them.

    Args:
        centroids: ``(groups, clusters, dim)``.
        deviation: standard deviation of the weights of each group, ``(groups,)``.

    Returns:
        bool, ``(groups, clusters)``.
    """
    near = _NEAR * deviation[:, None]
    if centroids.shape[-1] == 1:
        values, order = centroids[..., 0].sort(dim=1, stable=True)
        close = torch.nn.functional.pad(values.diff() <= near, (1, 0), value=False)
        return torch.zeros_like(close).scatter_(1, order, close)
    gaps = torch.cdist(centroids, centroids, compute_mode="donot_use_mm_for_euclid_dist")
    return (gaps <= near[..., None]).tril(-1).any(2)


def variances(vectors: Tensor) -> Tensor:
    """Variance of the weights of each group, float32 or wider, ``(groups,)``."""
    flat = vectors.detach().flatten(1)
    wide = flat.to(torch.promote_types(flat.dtype, torch.float32))
    # The reduction of a whole tensor is many times faster than that of its only row.
    return wide.var(correction=0)[None] if len(wide) == 1 else wide.var(1, correction=0)


def separate_duplicates(
    centroids: Tensor, vectors: Tensor, variance: Tensor, step: Tensor
) -> tuple[Tensor, Tensor]:
    """Move every duplicate centroid to one of the vectors; no value is read on the host.

    Args:
        centroids: ``(groups, clusters, dim)``.
        vectors: ``(groups, count, dim)``.
        variance: of the weights of each group, ``(groups,)``.
        step: int64 scalar; another step takes other vectors.

    Returns:
        The centroids, and how many were moved (int64 scalar).
    """
    again = duplicates(centroids, variance.sqrt())
    clusters, count = centroids.shape[1], vectors.shape[1]
    # A stride that shares no factor with most counts walks all over the weight.
    chosen = (torch.arange(clusters, device=vectors.device) + step * clusters) * 7919 % count
    fresh = vectors[:, chosen].to(centroids.dtype)
    return torch.where(again[..., None], fresh, centroids), again.sum()


@torch.no_grad()
def next_start(
    before: Tensor, after: Tensor, vectors: Tensor, step: Tensor
) -> tuple[Tensor, Tensor]:
    """The centroids to start from next time: apart from each other, and never NaN.

    Args:
        before: where this step started, ``(groups, clusters, dim)``.
        after: where it ended.
        vectors: ``(groups, count, dim)``.
        step: int64 scalar, see :func:`separate_duplicates`.

    Returns:
        The centroids, and how many were sent off again (int64 scalar).
    """
    apart, moved = separate_duplicates(after, vectors, variances(vectors), step)
    finite = torch.isfinite(apart).all()
    return torch.where(finite, apart, before), torch.where(finite, moved, 0)


@torch.no_grad()
def forecast(
    vectors: Tensor, centroids: Tensor, soften: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
) -> str | None:
    """What will become of k-means centroids at this temperature, if that is a collapse.

    Args:
        vectors: ``(groups, count, dim)``.
        centroids: ``(groups, clusters, dim)``, of k-means.
        soften: ``(vectors, centroids)`` to soft vectors and the next centroids.

    Returns:
        The reason, or None if the centroids stay apart and near the error of k-means.
    """
    stride = max(1, vectors.shape[1] // _SAMPLE)
    vectors = vectors[:, ::stride]
    # In the tails of a weight a centroid has so few of the sample that they would draw it to its
    # neighbour, where all that it has would not.
    nearest = assign(vectors, centroids)
    held = members(nearest, centroids) < (_OWNED if stride > 1 else 1)
    settled = centroids
    for _ in range(_SETTLE):
        settled = torch.where(held[..., None], settled, soften(vectors, settled)[1])
    deviation = variances(vectors).sqrt()
    merged = duplicates(settled, deviation).sum(1)
    if (merged > duplicates(centroids, deviation).sum(1)).any():
        left = centroids.shape[1] - int(merged.max())
        return f"only {left} of {centroids.shape[1]} centroids stay apart"
    best = _error(vectors, centroids, nearest).clamp(min=1e-30)
    worse = _error(vectors, settled, assign(vectors, settled)) / best
    if worse.max() > _WORSE:
        return f"the squared error of hard assignment grows {worse.max():.1f} times"
    return None


def _error(vectors: Tensor, centroids: Tensor, nearest: Tensor) -> Tensor:
    decoded = centroids.gather(1, nearest[..., None].expand_as(vectors))
    return (vectors - decoded.to(vectors.dtype)).square().sum((1, 2))
