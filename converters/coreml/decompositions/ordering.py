"""Calls that order or count values, in terms of others that coremltools knows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

_aten = torch.ops.aten


def _kth_value(x: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    values, places = torch.sort(x, dim)
    found = values.narrow(dim, k - 1, 1), places.narrow(dim, k - 1, 1)
    return found if keepdim else (found[0].squeeze(dim), found[1].squeeze(dim))


def _sort(x: Tensor, *, dim: int = -1, descending: bool = False, **_: Any) -> Any:
    return torch.sort(x, dim, descending)


def _median(x: Tensor) -> Tensor:
    """The middle value of all; the lower one of two."""
    return _kth_value(x.reshape(-1), (x.numel() + 1) // 2)[0]


def _median_along(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    return _kth_value(x, (x.shape[dim] + 1) // 2, dim, keepdim)


def _histogram(x: Tensor, bins: int = 100, low: Any = 0, high: Any = 0) -> Any:
    """How many values lie in each of equally wide bins; the last one has its upper end too."""
    if low == high:
        return NotImplemented
    x = x.reshape(-1)
    place = torch.floor((x - low) * (bins / (high - low))).clamp(max=float(bins - 1))
    inside = (x >= low) & (x <= high)
    hit = (place[:, None] == torch.arange(bins, dtype=x.dtype)[None]) & inside[:, None]
    return hit.to(x.dtype).sum(0)


def _running(x: Tensor, dim: int, beats: Callable[[Tensor, Tensor], Tensor]) -> Any:
    """The extreme so far and its place, the last one of equals, in steps of twice the length."""
    length = x.shape[dim]
    shape = [-1 if axis == dim % x.ndim else 1 for axis in range(x.ndim)]
    places = torch.arange(length, device=x.device).reshape(shape).expand(x.shape)
    reach = 1
    while reach < length:
        values, earlier = (y.narrow(dim, 0, length - reach) for y in (x, places))
        rest, later = (y.narrow(dim, reach, length - reach) for y in (x, places))
        keeps = beats(values, rest)
        x, places = (
            torch.cat([y.narrow(dim, 0, reach), torch.where(keeps, before, now)], dim)
            for y, before, now in ((x, values, rest), (places, earlier, later))
        )
        reach *= 2
    return x, places


ORDERING: dict[Any, Callable[..., Any]] = {
    _aten.sort.stable: _sort,
    _aten.kthvalue.default: _kth_value,
    _aten.median.default: _median,
    _aten.median.dim: _median_along,
    _aten.cummax.default: partial(_running, beats=torch.gt),
    _aten.cummin.default: partial(_running, beats=torch.lt),
    _aten.histc.default: _histogram,
}
