"""Uniform levels with a learned interval and scale, and the gradient of EWGS.

Lee, Kim and Ham, CVPR 2021, element-wise gradient scaling. What is learned of a group is (l, u, a):
a weight w becomes ``x = clip((w - l) / (u - l), 0, 1)``, x the nearest q of ``k / (2**bits - 1)``,
and q the value ``a (2 q - 1)``. Values and assignment are learned apart: the interval need not be
that of the values.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dkm_deploy.clustering.quantizers.hard import pass_gradient

_DEVIATIONS = 3  # from the middle to the ends of the interval at the start


def start(vectors: Tensor, clusters: int) -> Tensor:
    """What is learned, at the start: l and u at 3 standard deviations, as the paper has it.

    a is the one of the least squared error; how the paper starts it was not found.

    Args:
        vectors: floating, ``(groups, count, 1)``.
        clusters: levels.

    Returns:
        ``(groups, 3)``: l, u, a; float32 or wider.
    """
    wide = vectors.detach()[..., 0].to(torch.promote_types(vectors.dtype, torch.float32))
    high = _DEVIATIONS * wide.std(1, correction=0)
    unit = torch.stack([-high, high, torch.ones_like(high)], 1)
    levels = assign_levels(vectors, unit, clusters) * (2 / (clusters - 1)) - 1
    gain = (wide * levels).sum(1) / levels.square().sum(1).clamp(min=torch.finfo(wide.dtype).tiny)
    return torch.stack([-high, high, gain], 1)


def values(learned: Tensor, clusters: int) -> Tensor:
    """The value of each level, ``(groups, clusters, 1)``."""
    steps = torch.arange(clusters, dtype=learned.dtype, device=learned.device) / (clusters - 1)
    return (learned[:, 2:] * (2 * steps - 1)).unsqueeze(-1)


def assign_levels(vectors: Tensor, learned: Tensor, clusters: int) -> Tensor:
    """The level of each weight, int64 ``(groups, count)``."""
    with torch.no_grad():
        return (_normalize(vectors, learned) * (clusters - 1)).round()[..., 0].long()


def decode_levels(levels: Tensor, learned: Tensor) -> Tensor:
    """The values of levels ``(groups, count, 1)``, which lie in 0..1."""
    return learned[:, 2, None, None] * (2 * levels - 1)


def quantize(vectors: Tensor, learned: Tensor, clusters: int, scaling: float | Tensor) -> Tensor:
    """The value of each weight's level; gradients reach the weights and all that is learned.

    Args:
        vectors: ``(groups, count, 1)``; those outside the interval get no gradient.
        learned: ``(groups, 3)``.
        clusters: levels.
        scaling: delta; 0 is plain straight-through.
    """
    x = _normalize(vectors, learned)
    with torch.no_grad():
        levels = (x * (clusters - 1)).round() / (clusters - 1)
        gap = scaling * (x - levels)
    return decode_levels(pass_gradient(x, levels, gap), learned).to(vectors.dtype)


def _normalize(vectors: Tensor, learned: Tensor) -> Tensor:
    low, high = learned[:, 0, None, None], learned[:, 1, None, None]
    return ((vectors - low) / (high - low)).clamp(0, 1)
