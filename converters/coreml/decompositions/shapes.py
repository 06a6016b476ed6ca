"""Calls that move values, in terms of others that coremltools knows in every form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from converters.diagonals import diagonal

_aten = torch.ops.aten


def _pad(call: Any, x: Tensor, pad: Sequence[int], *args: Any) -> Any:
    """Padding of which some is negative: what there is of it is cut off afterwards."""
    if all(amount >= 0 for amount in pad):
        return NotImplemented
    x = call(x, [max(amount, 0) for amount in pad], *args)
    for place, amount in enumerate(pad):
        if amount < 0:
            axis = x.ndim - 1 - place // 2
            x = x.narrow(axis, 0 if place % 2 else -amount, x.shape[axis] + amount)
    return x


def _diagonal(x: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """Any diagonal but the main one, which coremltools has."""
    dim1, dim2 = dim1 % x.ndim, dim2 % x.ndim
    if (offset, dim1, dim2) == (0, 0, 1):
        return NotImplemented
    return diagonal(x, offset, dim1, dim2)


def _diagonal_embed(x: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Values on a diagonal of zeros, picked by their place."""
    size = x.shape[-1] + abs(offset)
    rows = torch.arange(size, device=x.device)[:, None]
    columns = torch.arange(size, device=x.device)[None]
    hit = columns - rows == offset
    spread = x.unsqueeze(-1 if offset >= 0 else -2)
    behind = [0, abs(offset)] if offset < 0 else [0, 0, 0, abs(offset)]
    spread = _aten.constant_pad_nd.default(spread, behind) if offset else spread
    return torch.where(hit, spread, torch.zeros_like(spread)).movedim((-2, -1), (dim1, dim2))


def _masked_select(x: Tensor, mask: Tensor) -> Tensor:
    x, mask = _aten.broadcast_tensors.default([x, mask])
    return _aten.index.Tensor(x, [mask])  # type: ignore[no-any-return]


def _masked_scatter(x: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """Each marked place takes the next value of ``source``."""
    mask = mask.expand(x.shape)
    places = mask.flatten().to(torch.int32).cumsum(0) - 1
    picked = source.flatten().index_select(0, places.clamp(min=0))
    return torch.where(mask, picked.reshape(x.shape), x)


def _unfold(x: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Windows of so many values along a dimension, each behind all others."""
    dimension %= x.ndim
    count = (x.shape[dimension] - size) // step + 1
    steps = torch.arange(count, device=x.device) * step
    places = steps[:, None] + torch.arange(size, device=x.device)[None]
    picked = x.index_select(dimension, places.reshape(-1))
    shape = [*x.shape[:dimension], count, size, *x.shape[dimension + 1 :]]
    return picked.reshape(shape).movedim(dimension + 1, -1)


def _as_strided(
    x: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None
) -> Any:
    """Values picked by their places in memory, which are in order."""
    if not x.is_contiguous() or x.storage_offset():
        return NotImplemented
    places = torch.full((), storage_offset or 0, dtype=torch.int64, device=x.device)
    for length, step in zip(size, stride, strict=True):
        places = places.unsqueeze(-1) + torch.arange(length, device=x.device) * step
    return x.reshape(-1).index_select(0, places.reshape(-1)).reshape(list(size))


def _index_add(x: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    source = source if alpha == 1 else source * alpha
    return torch.scatter_add(x, dim, _beside(index, source, dim), source)


def _index_copy(x: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    return torch.scatter(x, dim, _beside(index, source, dim), source)


def _index_fill(x: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """Slices of one value: where the dimension's place is among those given."""
    places = torch.arange(x.shape[dim], device=x.device)
    hit = (places[:, None] == index.reshape(1, -1).to(places.dtype)).any(1)
    hit = hit.reshape([-1 if axis == dim % x.ndim else 1 for axis in range(x.ndim)])
    value = value.to(x.dtype) if isinstance(value, Tensor) else torch.full_like(x, value)
    return torch.where(hit, value, x)


def _add_at(
    x: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False
) -> Any:
    """Values added at places along one dimension, beside whole ones, which coremltools refuses."""
    given = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    if not accumulate or len(given) != 1 or given[0][1].dtype is torch.bool or x.ndim == 1:
        return NotImplemented
    axis, index = given[0]
    shape = [*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]]
    source = values.to(x.dtype).expand(shape).flatten(axis, axis + index.ndim - 1)
    return _index_add(x, axis, index.reshape(-1), source)


def _beside(index: Tensor, source: Tensor, dim: int) -> Tensor:
    """Places along a dimension, the same for all others."""
    shape = [-1 if axis == dim % source.ndim else 1 for axis in range(source.ndim)]
    return index.reshape(shape).expand(source.shape)


SHAPES: dict[Any, Callable[..., Any]] = {
    _aten.pad.default: partial(_pad, _aten.pad.default),
    _aten.constant_pad_nd.default: partial(_pad, _aten.constant_pad_nd.default),
    _aten.diagonal.default: _diagonal,
    _aten.diagonal_copy.default: _diagonal,
    _aten.diag_embed.default: _diagonal_embed,
    _aten.unfold.default: _unfold,
    _aten.as_strided.default: _as_strided,
    _aten.index_add.default: _index_add,
    _aten.index_copy.default: _index_copy,
    _aten.index_fill.int_Scalar: _index_fill,
    _aten.index_fill.int_Tensor: _index_fill,
    _aten.index_put.default: _add_at,
    _aten.masked_select.default: _masked_select,
    _aten.masked_scatter.default: _masked_scatter,
}
