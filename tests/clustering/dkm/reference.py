"""DKM as the paper writes it, in plain dense autograd: what the faster ways are compared with."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

_BLOCK = 1 << 24  # differences of values that are held at a time; autograd makes them anew


def dense_soft_cluster(
    vectors: Tensor, centroids: Tensor, tau: Tensor, iterations: int
) -> tuple[Tensor, Tensor]:
    """Soft vectors and last centroids; differentiable through all iterations.

    Args:
        vectors: ``(groups, count, dim)``, float64 for a reference.
        centroids: ``(groups, clusters, dim)``, detached here.
        tau: ``(groups,)``.
        iterations: at least 1.
    """
    tau = tau.clamp(min=torch.finfo(tau.dtype).tiny)[:, None, None]
    centroids = centroids.detach()
    blocks = vectors.split(max(1, _BLOCK // centroids[0].numel()), dim=1)
    for _ in range(iterations):
        start = centroids
        sums = [_again(_sums, block, start, tau) for block in blocks]
        mass, totals = (torch.stack(parts).sum(0) for parts in zip(*sums, strict=True))
        alive = mass > torch.finfo(mass.dtype).tiny
        centroids = torch.where(alive, totals / torch.where(alive, mass, 1), centroids)
    soft = [_again(_mixed, block, start, tau, centroids) for block in blocks]
    return torch.cat(soft, dim=1), centroids.detach()


def _again(function, *inputs):
    return checkpoint(function, *inputs, use_reentrant=False)


def _attention(vectors: Tensor, centroids: Tensor, tau: Tensor) -> Tensor:
    gaps = vectors[:, :, None, :] - centroids[:, None, :, :]
    return torch.softmax(-gaps.square().sum(-1) / tau, dim=-1)


def _sums(vectors: Tensor, centroids: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
    attention = _attention(vectors, centroids, tau)
    return attention.sum(1)[..., None], attention.mT @ vectors


def _mixed(vectors: Tensor, centroids: Tensor, tau: Tensor, moved: Tensor) -> Tensor:
    return _attention(vectors, centroids, tau) @ moved
