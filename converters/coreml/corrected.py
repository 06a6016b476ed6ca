"""Calls that coremltools gets wrong, in terms of others that it gets right."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

_aten = torch.ops.aten


def _place(call: Any, x: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The place of an extreme among all values: coremltools looks along the last dimension."""
    if dim is not None:
        return NotImplemented
    place = call(x.reshape(-1), 0)
    return place.reshape([1] * x.ndim) if keepdim else place


def _floor(x: Tensor, other: Any, *, rounding_mode: str | None = "floor") -> Any:
    """A number divided by one and rounded down: coremltools takes the division for nothing."""
    if rounding_mode != "floor" or not x.is_floating_point() or not _is_one(other):
        return NotImplemented
    return torch.floor(x)


def _is_one(value: Any) -> bool:
    return isinstance(value, (int, float)) and value == 1


CORRECTED: dict[Any, Callable[..., Any]] = {
    _aten.argmax.default: partial(_place, _aten.argmax.default),
    _aten.argmin.default: partial(_place, _aten.argmin.default),
    _aten.floor_divide.default: _floor,
    _aten.div.Tensor_mode: _floor,
    _aten.div.Scalar_mode: _floor,
}
