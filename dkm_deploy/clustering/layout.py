"""Between a weight and the vectors that are clustered.

Vectors have shape ``(groups, count, cluster_dim)``: every group is clustered on its own, and a
vector is ``cluster_dim`` neighbouring channels along the spec's axis. Where a palette has a
per-channel scale, it is the weight divided by that scale that is clustered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dkm_deploy.palette import Palette
from dkm_deploy.palette_spec import PaletteSpec


def group_count(shape: Sequence[int], spec: PaletteSpec) -> int:
    """LUTs that a weight of ``shape`` has along the spec's axis."""
    return 1 if spec.group_size is None else shape[spec.axis] // spec.group_size


def channel_scale(weight: Tensor) -> Tensor:
    """The largest absolute value of each channel along dimension 0, and 0 for a channel of zeros.

    What is smaller than any normal number of float32 (of float64, for such weights) counts as
    zero: nothing divided by it would be exact. Detached, of the weight's dtype and shape
    ``(channels, 1, 1 ..)``.
    """
    largest = weight.detach().abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True)
    least = torch.finfo(torch.promote_types(weight.dtype, torch.float32)).tiny
    return torch.where(largest >= least, largest, 0)


def over_scale(weight: Tensor, scale: Tensor) -> Tensor:
    """The weight over the scale of its channels; where that is 0, the weight as it is."""
    return weight / torch.where(scale > 0, scale, 1)


def to_vectors(weight: Tensor, spec: PaletteSpec) -> Tensor:
    """Vectors ``(groups, count, cluster_dim)`` of a weight of any rank; differentiable."""
    groups, dim = group_count(weight.shape, spec), spec.cluster_dim
    channels_first = weight.movedim(spec.axis, 0)
    rows = len(channels_first) // (groups * dim)
    split = channels_first.reshape(groups, rows, dim, -1)
    return split.transpose(2, 3).reshape(groups, -1, dim)


def from_vectors(vectors: Tensor, shape: Sequence[int], spec: PaletteSpec) -> Tensor:
    """The weight of ``shape`` that gave ``vectors``; the inverse of :func:`to_vectors`."""
    groups, _, dim = vectors.shape
    axis = spec.axis
    rest = [*shape[:axis], *shape[axis + 1 :]]
    rows = shape[axis] // (groups * dim)
    split = vectors.reshape(groups, rows, -1, dim).transpose(2, 3)
    return split.reshape(shape[axis], *rest).movedim(0, axis)


def zero_palette(shape: Sequence[int], spec: PaletteSpec, dtype: np.dtype[Any]) -> Palette:
    """A palette as ``spec`` gives for a weight of ``shape``, but all zeros: of the same bytes."""
    indices_shape, groups = list(shape), [1] * len(shape)
    groups[spec.axis] = group_count(shape, spec)
    indices_shape[spec.axis] //= spec.cluster_dim
    lut = np.zeros((*groups, 1 << spec.bits, spec.cluster_dim), dtype)
    channels = (shape[0], *[1] * (len(shape) - 1))
    scale = np.ones(channels, dtype) if spec.per_channel_scale else None
    return Palette(np.zeros(indices_shape, np.uint8), lut, spec.axis, scale=scale)


def to_palette(
    assignment: Tensor,
    centroids: Tensor,
    shape: Sequence[int],
    spec: PaletteSpec,
    scale: Tensor | None = None,
) -> Palette:
    """A palette from hard assignments.

    Args:
        assignment: integer, ``(groups, count)``.
        centroids: floating, ``(groups, 2**bits, cluster_dim)``.
        shape: of the dense weight.
        spec: its axis and sizes are used.
        scale: of the channels, ``(channels, 1, 1 ..)``, given the dtype of the LUT.
    """
    indices_shape = list(shape)
    indices_shape[spec.axis] //= spec.cluster_dim
    scalar = PaletteSpec(
        spec.bits, 1, spec.axis, spec.group_size and spec.group_size // spec.cluster_dim
    )
    indices = from_vectors(assignment.to(torch.uint8).unsqueeze(-1), indices_shape, scalar)
    lut_shape = [1] * len(indices_shape) + list(centroids.shape[1:])
    lut_shape[spec.axis] = len(centroids)
    lut = centroids.detach().float() if centroids.dtype == torch.bfloat16 else centroids.detach()
    return Palette(
        np.ascontiguousarray(indices.cpu().numpy()),
        lut.reshape(lut_shape).cpu().numpy().copy(),
        spec.axis,
        scale=None if scale is None else scale.to(lut.dtype).cpu().numpy().copy(),
    )
