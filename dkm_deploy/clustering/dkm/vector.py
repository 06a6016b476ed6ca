"""DKM on vectors, exact, with memory that grows with the vectors only.

The paper is Cho et al., ICLR 2022, arXiv 2108.12659, section 3.2 with the vectors of 3.3. One
iteration on vectors ``x_i`` and centroids ``c_j`` of one group is

    z_ij = -|x_i - c_j|^2 / tau,  a_ij = softmax_j z_ij,  s_j = sum_i a_ij,
    c'_j = sum_i a_ij x_i / s_j,

and the result of the last one is ``y_i = sum_j a_ij c'_j``. The attention ``a`` is never kept: it
is computed again from the centroids, block by block, whenever a pass needs it.

Backward, with ``g_i = dL/dy_i`` and ``v_j = dL/dc'_j``, which starts as ``sum_i a_ij g_i``. One
iteration is pulled back by (``g`` is there for the last iteration only)

    u_j     = v_j / s_j
    p_ij    = g_i . c'_j + u_j . (x_i - c'_j)            (this is dL/da_ij)
    q_ij    = a_ij (p_ij - sum_l a_il p_il)              (this is dL/dz_ij, its rows sum to 0)
    dL/dx_i += sum_j a_ij u_j + 2/tau sum_j q_ij c_j
    dL/dc_j = 2/tau (sum_i q_ij x_i - c_j sum_i q_ij)    (the v of the iteration before)

Three gradients of the centroids:

- ``unrolled``: through all iterations, as in the paper.
- ``one_step``: through the last iteration only (Jacobian-free backpropagation).
- ``implicit``: as if infinitely many iterations had been made at the last centroids. With J the
  Jacobian of one iteration, v is replaced by ``v + (I - J^T)^-1 dL/dc``. J is similar to a
  symmetric matrix with eigenvalues in [0, 1) at a fixed point, and 1 is where two centroids
  merge. So the solution is found by Lanczos with passes over the vectors, and no eigendirection is
  amplified more than 50 times: exact up to an eigenvalue of 0.98, bounded beyond.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dkm_deploy.clustering.dkm.vector_passes import CentroidUpdate, Passes
from dkm_deploy.clustering.krylov import capped_resolvent

_MERGING = 0.02  # distance of an eigenvalue of J from 1 that is still told from 1
_PRODUCTS = 40  # passes that the implicit gradient takes at most


def soft_cluster_vectors(
    vectors: Tensor, centroids: Tensor, tau: Tensor, iterations: int, gradient: str = "unrolled"
) -> tuple[Tensor, Tensor]:
    """Replace each vector by its attention-weighted mean of centroids.

    What is kept for the backward pass is ``vectors`` and the centroids of each iteration. The
    gradient can be taken once, not differentiated again.

    Args:
        vectors: float16, bfloat16, float32 or float64, ``(groups, count, dim)``.
        centroids: ``(groups, clusters, dim)``, where to start; no gradient flows into them.
        tau: temperature in squared weight units, ``(groups,)``; 0 is hard k-means.
        iterations: at least 1.
        gradient: "unrolled", "implicit" or "one_step"; see the module. It and ``iterations`` are
            checked by :func:`dkm_deploy.clustering.dkm.soft_cluster.soft_cluster`.

    Returns:
        The soft vectors, in shape and dtype as ``vectors``, and the last centroids, detached, in
        the dtype of ``centroids``. A centroid that nothing attends to stays where it was.
    """
    soft, path, _ = _forward(vectors, centroids.detach(), tau.detach(), iterations, gradient)
    return soft, path[-1].detach().to(centroids.dtype)


@torch.library.custom_op("dkm::soft_cluster_vectors", mutates_args=())
def _forward(
    vectors: Tensor, centroids: Tensor, tau: Tensor, iterations: int, gradient: str
) -> tuple[Tensor, Tensor, Tensor]:
    """The soft vectors, and of the iterations to pull back: all centroids and attention sums.

    The latter are float64, ``(kept + 1, groups, clusters, dim)`` and ``(kept, groups, clusters)``.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        passes = Passes.of(vectors, tau, exact=False)
        path, mass = _iterate(passes, centroids, iterations)
        if passes.cut_off(mass):
            passes = Passes.of(vectors, tau, exact=True)
            path, mass = _iterate(passes, centroids, iterations)
        kept = iterations if gradient == "unrolled" else 1
        soft = passes.read(path[-2], path[-1])
        return soft, path[-kept - 1 :].clone(), mass[-kept:].clone()


@_forward.register_fake
def _(
    vectors: Tensor, centroids: Tensor, tau: Tensor, iterations: int, gradient: str
) -> tuple[Tensor, Tensor, Tensor]:
    kept = iterations if gradient == "unrolled" else 1
    path = centroids.new_empty((kept + 1, *centroids.shape), dtype=torch.float64)
    mass = centroids.new_empty((kept, *centroids.shape[:2]), dtype=torch.float64)
    return torch.empty_like(vectors, memory_format=torch.contiguous_format), path, mass


@torch.library.custom_op("dkm::soft_cluster_vectors_backward", mutates_args=())
def _backward(
    upstream: Tensor, vectors: Tensor, path: Tensor, mass: Tensor, tau: Tensor, gradient: str
) -> Tensor:
    """The gradient of the vectors."""
    with torch.autocast(vectors.device.type, enabled=False):
        passes = Passes.of(vectors, tau, exact=False)
        if passes.cut_off(mass):
            passes = Passes.of(vectors, tau, exact=True)
        result = torch.zeros(vectors.shape, dtype=passes.kept_dtype, device=vectors.device)
        adjoint = passes.pool(path[-2], upstream)
        grad: Tensor | None = upstream
        for step in reversed(range(len(mass))):
            last = CentroidUpdate(path[step], path[step + 1], mass[step])
            adjoint = passes.pull_back(last, adjoint, grad, result)
            grad = None
        if gradient == "implicit":
            passes.pull_back(last, _implicit(passes, last, adjoint), None, result)
        return result.to(vectors.dtype)


@_backward.register_fake
def _(
    upstream: Tensor, vectors: Tensor, path: Tensor, mass: Tensor, tau: Tensor, gradient: str
) -> Tensor:
    return torch.empty_like(vectors, memory_format=torch.contiguous_format)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    vectors, _, tau, _, ctx.gradient = inputs
    _, path, mass = output
    ctx.mark_non_differentiable(path, mass)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(vectors, path, mass, tau)


def _differentiate(ctx: Any, upstream: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    if upstream is None:
        return None, None, None, None, None
    return _backward(upstream, *ctx.saved_tensors, ctx.gradient), None, None, None, None


_forward.register_autograd(_differentiate, setup_context=_save)


def _iterate(passes: Passes, centroids: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Centroids before and after each iteration, and the attention sums of each."""
    path, masses = [centroids.double()], []
    for _ in range(iterations):
        means, mass = passes.update(path[-1])
        path.append(means)
        masses.append(mass)
    return torch.stack(path), torch.stack(masses)


def _implicit(passes: Passes, step: CentroidUpdate, right: Tensor) -> Tensor:
    """``(I - J^T)^-1 right``; scaled by the root of the attention sums, J is symmetric."""
    root = torch.where(step.mass > 0, step.mass, 1).sqrt()[..., None]

    def product(flat: Tensor) -> Tensor:
        adjoint = flat.reshape(right.shape) * root
        return (passes.pull_back(step, adjoint) / root).flatten(1)

    scaled = (right / root).flatten(1)
    solved = capped_resolvent(product, scaled, floor=_MERGING, steps=_PRODUCTS, tolerance=1e-5)
    return solved.reshape(right.shape) * root
