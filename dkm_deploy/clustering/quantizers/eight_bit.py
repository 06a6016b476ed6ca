"""Weights on a symmetric 8-bit grid in the forward pass, as 8-bit LUTs have it; EWGS backward."""

from __future__ import annotations

import torch
from torch import Tensor

from dkm_deploy.clustering.quantizers.hard import pass_gradient
from dkm_deploy.clustering.quantizers.int8_lut import LARGEST


def at_eight_bits(vectors: Tensor, scaling: float = 0.0) -> Tensor:
    """Every value as the nearest whole multiple, -127 to 127, of one step.

    The step is the largest magnitude over 127, the grid of
    :func:`dkm_deploy.clustering.quantizers.int8_lut.round_lut`. The gradient is scaled as in
    :func:`dkm_deploy.clustering.quantizers.hard.hard_cluster`.

    Args:
        vectors: floating, of any shape, finite.
        scaling: delta of EWGS; 0 is plain straight-through.
    """
    with torch.no_grad():
        wide = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
        step = (wide.abs().amax() / LARGEST).clamp(min=torch.finfo(wide.dtype).tiny)
        rounded = (wide / step).round() * step
        gap = (wide - rounded) / (2 * LARGEST * step)
    return pass_gradient(vectors, rounded.to(vectors.dtype), (scaling * gap).to(vectors.dtype))
