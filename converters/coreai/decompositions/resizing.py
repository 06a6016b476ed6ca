"""Resizing of images that coreai-torch lacks or gets wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table

_aten = torch.ops.aten
_CUBIC = -0.5  # of antialiased bicubic filters; plain ones have -0.75


def _nearest(x: Tensor, size: Sequence[int] | None, factors: Sequence[float] | None) -> Any:
    """The value before each place; Core AI takes another unless sides grow by whole factors."""
    if factors is None:
        ratios = [after / before for before, after in zip(x.shape[2:], size or (), strict=True)]
    else:
        ratios = list(factors)
    if all(ratio >= 1 and ratio == int(ratio) for ratio in ratios):
        return NotImplemented
    return decomposition_table[_aten.upsample_nearest2d.vec](x, size, factors)


def _antialiased(
    radius: float,
    filtered: Callable[[Tensor], Tensor],
    x: Tensor,
    size: Sequence[int],
    align_corners: bool,
    *factors: float | None,
) -> Tensor:
    """A weighted mean of the pixels about each place, a side at a time."""
    for axis, after, factor in zip((-2, -1), size, (*factors, None, None)[:2], strict=True):
        before = x.shape[axis]
        weights = _weights(before, after, align_corners, factor, radius, filtered).to(x.dtype)
        x = torch.matmul(x.movedim(axis, -1), weights.T).movedim(-1, axis)
    return x


def _weights(
    before: int,
    after: int,
    align_corners: bool,
    factor: float | None,
    radius: float,
    filtered: Callable[[Tensor], Tensor],
) -> Tensor:
    """What each of ``before`` pixels counts in ``after``, float32 (after, before)."""
    if align_corners:
        step = (before - 1) / (after - 1) if after > 1 else 0.0
    else:
        step = 1 / factor if factor else before / after
    wide = max(step, 1.0)
    center = (torch.arange(after, dtype=torch.float32)[:, None] + 0.5) * step
    place = torch.arange(before, dtype=torch.float32)[None] + 0.5
    low, high = torch.floor(center - radius * wide + 0.5), torch.floor(center + radius * wide + 0.5)
    inside = (place > low.clamp(min=0.0)) & (place < high)
    weights = torch.where(inside, filtered((place - center).abs() / wide), 0.0)
    return weights / weights.sum(1, keepdim=True)


def _triangle(distance: Tensor) -> Tensor:
    return (1 - distance).clamp(min=0.0)


def _cubic(x: Tensor) -> Tensor:
    near = ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * _CUBIC - 4 * _CUBIC
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


RESIZING: dict[Any, Callable[..., Any]] = {
    _aten.upsample_nearest2d.vec: _nearest,
    _aten._upsample_bilinear2d_aa.default: partial(_antialiased, 1.0, _triangle),
    _aten._upsample_bicubic2d_aa.default: partial(_antialiased, 2.0, _cubic),
}
