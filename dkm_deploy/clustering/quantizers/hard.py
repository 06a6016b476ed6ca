"""Hard assignment in the forward pass, with a gradient passed straight to the weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dkm_deploy.clustering.kmeans.kmeans import assign, members


def hard_cluster(vectors: Tensor, centroids: Tensor, scaling: float = 0.0) -> tuple[Tensor, Tensor]:
    """Replace each vector by its centroid after one step of Lloyd's algorithm.

    The gradient of the result goes to the vectors as it is (straight-through: Bengio, Leonard and
    Courville 2013, arXiv 1308.3432), or element-wise scaled (EWGS: Lee, Kim and Ham, CVPR 2021,
    equation 6) by ``1 + scaling * sign(g) * (w - c)``, with w - c in units of the range of the
    centroids, as EWGS has it for levels on [0, 1].

    Args:
        vectors: ``(groups, count, dim)``.
        centroids: ``(groups, clusters, dim)``; no gradient flows into them.
        scaling: delta of EWGS; 0 is plain straight-through.

    Returns:
        The hard vectors, shaped as ``vectors``, and the updated centroids.
    """
    with torch.no_grad():
        nearest = assign(vectors, centroids)
        updated = _means(vectors, nearest, centroids)
        hard = updated.gather(1, nearest[..., None].expand_as(vectors)).to(vectors.dtype)
        span = updated.amax((1, 2), keepdim=True) - updated.amin((1, 2), keepdim=True)
        gap = (vectors - hard) / span.clamp(min=torch.finfo(span.dtype).tiny)
    return pass_gradient(vectors, hard, scaling * gap), updated


def pass_gradient(vectors: Tensor, hard: Tensor, scaled_gap: Tensor) -> Tensor:
    """``hard``, whose gradient g goes to ``vectors`` as ``g (1 + sign(g) scaled_gap)``.

    Args:
        vectors: of any shape.
        hard: of that shape; no gradient flows into it.
        scaled_gap: delta of EWGS times ``vectors - hard`` in units of the range of the levels.
    """
    result: Tensor = _PassGradient.apply(vectors, hard, scaled_gap)  # type: ignore[no-untyped-call]
    return result


def _means(vectors: Tensor, nearest: Tensor, centroids: Tensor) -> Tensor:
    """Mean of the vectors of each centroid; one without vectors stays where it is."""
    where = nearest[..., None].expand_as(vectors)
    sums = torch.zeros_like(centroids).scatter_add_(1, where, vectors.to(centroids.dtype))
    counts = members(nearest, centroids)[..., None]
    return torch.where(counts > 0, sums / counts.clamp(min=1), centroids)


class _PassGradient(torch.autograd.Function):
    """``hard`` forward; backward the gradient times ``1 + sign(gradient) * scaled_gap``."""

    @staticmethod
    def forward(vectors: Tensor, hard: Tensor, scaled_gap: Tensor) -> Tensor:
        return hard.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,), (scaled_gap,) = gradients, ctx.saved_tensors
        return gradient * (1 + gradient.sign() * scaled_gap), None, None
