"""Reductions, pooling and sampling in forms that coremltools lacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table

_aten = torch.ops.aten
_BICUBIC = 2
_EMBEDDING_BAG = {0: "sum", 1: "mean", 2: "max"}


def _with_mean(spread: Any, x: Tensor, dim: Any = None, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """A variance or standard deviation, and the mean."""
    keepdim = kwargs.get("keepdim", False)
    return spread(x, dim, **kwargs), x.mean(dim, keepdim=keepdim)


def _average(
    call: Any,
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    _: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """Sums divided by a given number: means with the padding counted, times what is too much."""
    if divisor_override is None or ceil_mode:
        return NotImplemented
    sides = x.ndim - 2 if len(kernel) == 1 else len(kernel)
    count = prod(kernel) ** (sides if len(kernel) == 1 else 1)
    return call(x, kernel, stride, padding, False, True, None) * (count / divisor_override)


def _bag(
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    _: bool = False,
    mode: int = 0,
    __: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> Any:
    """Rows of a table, summed, averaged or compared by bags; an empty one gives zeros.

    Of the four results the first one alone is right, as the others serve the gradient.
    """
    rows = _aten.embedding.default(weight, indices)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(-1)
    places = torch.arange(indices.shape[0], device=indices.device)
    begins = offsets.to(places.dtype)
    if include_last_offset:
        begins, ends = begins[:-1], begins[1:]
    else:
        last = torch.full_like(begins[:1], indices.shape[0])
        ends = last if len(begins) == 1 else torch.cat([begins[1:], last])
    member = (places[None] >= begins[:, None]) & (places[None] < ends[:, None])
    if padding_idx >= 0:
        member = member & (indices != padding_idx)[None]
    if _EMBEDDING_BAG[mode] == "max":
        low = torch.full_like(rows, -float("inf"))[None]
        largest = torch.where(member[..., None], rows[None], low).amax(1)
        bags = torch.where(member.any(1, keepdim=True), largest, torch.zeros_like(largest))
    else:
        share = member.to(rows.dtype)
        bags = torch.matmul(share, rows)
        if _EMBEDDING_BAG[mode] == "mean":
            bags = bags / share.sum(1, keepdim=True).clamp(min=1.0)
    return bags, offsets, offsets, offsets


def _grid_sample(x: Tensor, grid: Tensor, mode: int, padding: int, align: bool) -> Any:
    """Bicubic sampling, which Core ML has not."""
    if mode != _BICUBIC:
        return NotImplemented
    return decomposition_table[_aten.grid_sampler_2d.default](x, grid, mode, padding, align)


REDUCTIONS: dict[Any, Callable[..., Any]] = {
    _aten.var_mean.correction: partial(_with_mean, torch.var),
    _aten.std_mean.correction: partial(_with_mean, torch.std),
    **dict.fromkeys(
        (_aten._embedding_bag_forward_only.default, _aten._embedding_bag.default), _bag
    ),
    _aten.avg_pool2d.default: partial(_average, _aten.avg_pool2d.default),
    _aten.avg_pool3d.default: partial(_average, _aten.avg_pool3d.default),
    _aten.grid_sampler.default: _grid_sample,
}
