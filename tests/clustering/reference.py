"""DKM as the paper writes it, in plain dense autograd: what the faster ways are compared with."""

from __future__ import annotations

import torch
from torch import Tensor


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
    for _ in range(iterations):
        gaps = vectors[:, :, None, :] - centroids[:, None, :, :]
        attention = torch.softmax(-gaps.square().sum(-1) / tau, dim=-1)
        mass = attention.sum(1)[..., None]
        alive = mass > torch.finfo(mass.dtype).tiny
        means = attention.mT @ vectors / torch.where(alive, mass, 1)
        centroids = torch.where(alive, means, centroids)
    return attention @ centroids, centroids.detach()
