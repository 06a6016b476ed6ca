"""DKM: differentiable k-means (Cho et al., ICLR 2022, arXiv 2108.12659, section 3.2)."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from dkm_deploy.clustering.dkm.scalar import soft_cluster_scalars
from dkm_deploy.clustering.dkm.vector import soft_cluster_vectors
from dkm_deploy.errors import DkmError

Gradient = Literal["unrolled", "implicit", "one_step"]
GRADIENTS: tuple[Gradient, ...] = get_args(Gradient)


def soft_cluster(
    vectors: Tensor,
    centroids: Tensor,
    tau: Tensor,
    iterations: int,
    gradient: Gradient = "unrolled",
) -> tuple[Tensor, Tensor]:
    """Replace each vector by its attention-weighted mean of centroids.

    An iteration is the attention ``A = softmax(-|w - c|^2 / tau)`` over the centroids, then
    ``c_j = sum_i a_ij w_i / sum_i a_ij``. The result is ``A c`` with the A that made c, so that
    the sum of the result is the sum of ``vectors``. Distances are squared: tau is a variance (the
    paper's Appendix G). A centroid that nothing attends to stays where it is.

    Args:
        vectors: floating, ``(groups, count, dim)``.
        centroids: ``(groups, clusters, dim)``, where to start; no gradient flows into them.
        tau: temperature in squared weight units, ``(groups,)``; 0 is hard assignment.
        iterations: at least 1.
        gradient: of the centroids. "unrolled" goes through all iterations, as in the paper;
            "one_step" through the last one only (Jacobian-free); "implicit" is that of centroids
            at their fixed point, where ``I - J^T`` is solved for the Jacobian J of an iteration.
            J has an eigenvalue of 1 where centroids merge: no direction is amplified more than
            50 times, so that it is exact up to an eigenvalue of 0.98 and bounded beyond.

    Returns:
        The soft vectors, shaped as ``vectors`` and in their dtype, and the last centroids,
        detached.

    Raises:
        DkmError: ``iterations`` or ``gradient`` is out of range.
    """
    if iterations < 1:
        raise DkmError(f"iterations is {iterations}; it must be at least 1")
    if gradient not in GRADIENTS:
        raise DkmError(f"gradient is {gradient!r}; it must be one of {', '.join(GRADIENTS)}")
    cluster = soft_cluster_scalars if vectors.shape[-1] == 1 else soft_cluster_vectors
    return cluster(vectors, centroids, tau, iterations, gradient)
