"""DKM: differentiable k-means (Cho et al., ICLR 2022, arXiv 2108.12659, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor


def soft_cluster(
    vectors: Tensor, centroids: Tensor, tau: Tensor, iterations: int
) -> tuple[Tensor, Tensor]:
    """Replace each vector by its attention-weighted mean of centroids.

    An iteration is the attention ``A = softmax(-|w - c|^2 / tau)`` over the centroids, then
    ``c_j = sum_i a_ij w_i / sum_i a_ij``. The result is ``A c`` with the A that made c, so that
    the sum of the result is the sum of ``vectors``. Distances are squared: tau is a variance (the
    paper's Appendix G). Gradients flow through all iterations, as in the paper.

    Args:
        vectors: ``(groups, count, dim)``.
        centroids: ``(groups, clusters, dim)``, where to start; no gradient flows into them.
        tau: temperature in squared weight units, ``(groups,)``.
        iterations: at least 1.

    Returns:
        The soft vectors, shaped as ``vectors``, and the last centroids, detached.
    """
    tau = tau.clamp(min=torch.finfo(tau.dtype).tiny)[:, None, None]
    centroids = centroids.detach()
    for _ in range(iterations):
        attention = torch.softmax(-_squared_distances(vectors, centroids) / tau, dim=-1)
        mass = attention.sum(1)[..., None]
        # A centroid that nothing attends to stays where it is: 0 / 0 has no mean.
        alive = mass > torch.finfo(mass.dtype).tiny
        means = attention.mT @ vectors / torch.where(alive, mass, 1)
        centroids = torch.where(alive, means, centroids)
    return attention @ centroids, centroids.detach()


def _squared_distances(vectors: Tensor, centroids: Tensor) -> Tensor:
    # Differences, not |w|^2 - 2wc + |c|^2: the latter cancels where w is near c.
    return (vectors[:, :, None, :] - centroids[:, None, :, :]).square().sum(-1)
