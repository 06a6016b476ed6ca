"""Calls that pick, order and scatter values, in terms of those that coreai-torch lowers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from converters.diagonals import diagonal

_aten = torch.ops.aten
_SCATTERED = {"sum": "add", "prod": "multiply"}
_FILLS = {"sum": 0.0, "mean": 0.0, "amax": -float("inf"), "amin": float("inf")}
_MOST_PAIRS = 1 << 22  # of places and values, which lie in memory at once


def _as_strided(
    x: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None
) -> Any:
    """Values picked by their places in memory; ``x`` itself where these are its own."""
    begin = 0 if storage_offset is None else storage_offset - int(x.storage_offset())
    strides: tuple[int, ...] = x.stride()
    if list(size) == list(x.shape) and begin == 0 and _same_places(size, stride, strides):
        return x.clone()
    if begin < 0 or not _aten.is_non_overlapping_and_dense.default(x):
        return NotImplemented
    order = sorted(range(x.ndim), key=lambda axis: (-strides[axis], -x.shape[axis]))
    places = torch.full((), begin, dtype=torch.int64, device=x.device)
    for length, step in zip(size, stride, strict=True):
        places = places.unsqueeze(-1) + torch.arange(length, device=x.device) * step
    return x.permute(order).reshape(-1).index_select(0, places.reshape(-1)).reshape(list(size))


def _same_places(size: Sequence[int], one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two strides reach the same places, whatever those of dimensions of length 1."""
    return all(a == b for length, a, b in zip(size, one, other, strict=True) if length > 1)


def _sort(x: Tensor, dim: int = -1, descending: bool = False) -> Any:
    return torch.topk(x, x.shape[dim] if x.ndim else 1, dim, largest=descending)


def _scatter_add(x: Tensor, dim: int, index: Tensor, source: Tensor) -> Any:
    return torch.scatter(x, dim, index, _beside(source, index), reduce="add")


def _scatter_reduce(
    x: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Any:
    """Sums and products; for other kinds each place looks at all values that may go there."""
    if reduce in _SCATTERED and include_self:
        return torch.scatter(x, dim, index, _beside(source, index), reduce=_SCATTERED[reduce])
    x, index, given = (t.movedim(dim, -1) for t in (x, index, _beside(source, index)))
    pairs = index.numel() * x.shape[-1]
    if reduce not in _FILLS or index.shape[:-1] != x.shape[:-1] or pairs > _MOST_PAIRS:
        return NotImplemented
    places = torch.arange(x.shape[-1], device=x.device)
    meets = index.unsqueeze(-2) == places.unsqueeze(-1)
    given = given.unsqueeze(-2).expand(meets.shape)
    if include_self:
        meets = torch.cat([meets, torch.ones_like(meets[..., :1])], -1)
        given = torch.cat([given, x.unsqueeze(-1)], -1)
    chosen = torch.where(meets, given, torch.full_like(given, _FILLS[reduce]))
    if reduce in ("amax", "amin"):
        found = chosen.amax(-1) if reduce == "amax" else chosen.amin(-1)
    else:
        count = meets.to(x.dtype).sum(-1)
        found = chosen.sum(-1) / (count.clamp(min=1.0) if reduce == "mean" else 1.0)
    return torch.where(meets.any(-1), found, x).movedim(-1, dim)


def _beside(source: Tensor, index: Tensor) -> Tensor:
    """The part of ``source`` that ``index`` has places for."""
    for axis, length in enumerate(index.shape):
        source = source.narrow(axis, 0, length)
    return source


def _add_at(
    x: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False
) -> Any:
    """Values added up at places, as a scatter along the indexed dimensions laid end to end."""
    given = [axis for axis, index in enumerate(indices) if index is not None]
    picked = [index for index in indices if index is not None]
    if not accumulate or any(index.dtype is torch.bool for index in picked):
        return NotImplemented
    adjacent = given == list(range(given[0], given[-1] + 1))
    others = [axis for axis in range(x.ndim) if axis not in given]
    front = [x.shape[axis] for axis in given]
    rest = [x.shape[axis] for axis in others]
    place = torch.zeros((), dtype=torch.int64, device=x.device)
    for length, index in zip(front, picked, strict=True):
        index = index.long()
        place = place * length + torch.where(index < 0, index + length, index)
    before = [x.shape[axis] for axis in others if adjacent and axis < given[0]]
    shape = [*before, *place.shape, *rest[len(before) :]]
    source = values.to(x.dtype).expand(shape)
    source = source.movedim(
        list(range(len(before), len(before) + place.ndim)), list(range(place.ndim))
    ).reshape(place.numel(), -1)
    flat = x.permute([*given, *others]).reshape(prod(front), -1)
    spread = place.reshape(-1, 1).expand(source.shape)
    added = torch.scatter(flat, 0, spread, source, reduce="add").reshape([*front, *rest])
    inverse = [([*given, *others]).index(axis) for axis in range(x.ndim)]
    return added.permute(inverse)


def _pick(x: Tensor, indices: Sequence[Tensor | None]) -> Any:
    """Values at places that masks tell: coreai-torch takes the truth values for places."""
    if not any(_is_mask(index) for index in indices):
        return NotImplemented
    places: list[Tensor | None] = []
    for index in indices:
        places += index.nonzero().unbind(1) if index is not None and _is_mask(index) else [index]
    return _aten.index.Tensor(x, places)


def _is_mask(index: Tensor | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def _searchsorted(
    ordered: Tensor,
    x: Tensor,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Any:
    """Where values belong in one ordered row: how many come before."""
    if sorter is not None or ordered.ndim != 1:
        return NotImplemented
    after = right or side == "right"
    before = ordered <= x.unsqueeze(-1) if after else ordered < x.unsqueeze(-1)
    return before.sum(-1, dtype=torch.int32 if out_int32 else torch.int64)


INDEXING: dict[Any, Callable[..., Any]] = {
    _aten.as_strided.default: _as_strided,
    _aten.as_strided_copy.default: _as_strided,
    **dict.fromkeys((_aten.diagonal.default, _aten.diagonal_copy.default), diagonal),
    _aten.sort.default: _sort,
    _aten.sort.stable: lambda x, **how: _sort(x, how.get("dim", -1), how.get("descending", False)),
    _aten.scatter_add.default: _scatter_add,
    _aten.scatter_reduce.two: _scatter_reduce,
    _aten.index.Tensor: _pick,
    _aten.index_put.default: _add_at,
    _aten.searchsorted.Tensor: _searchsorted,
}
