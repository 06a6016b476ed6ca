"""Calls whose arguments are of several types, which Core ML's operations must not be."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

_aten = torch.ops.aten
_OF_FLOATS = (
    *("acos", "asin", "atan", "atanh", "cos", "cosh", "erf", "exp", "exp2", "expm1", "log"),
    *("log10", "log1p", "log2", "rsqrt", "sigmoid", "sin", "sinh", "sqrt", "tan", "tanh"),
)


def _of_floats(call: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    """A function of integers, as PyTorch takes it: of the same numbers as floats."""
    if x.is_floating_point() or x.is_complex():
        return NotImplemented
    return call(x.float(), *args, **kwargs)


def _where(condition: Tensor, first: Any, other: Any) -> Any:
    """A choice between a number and values, or between two numbers, both made of one type."""
    dtype = torch.result_type(first, other)
    first, other = (
        value if isinstance(value, Tensor) else torch.full((), value, dtype=dtype)
        for value in (first, other)
    )
    return torch.where(condition, first, other)


def _clamp_by(call: Any, x: Tensor, bound: Any) -> Any:
    """A bound of another type than the values."""
    if isinstance(bound, Tensor):
        return NotImplemented if bound.dtype == x.dtype else call(*_of_one_type(x, bound))
    if x.is_floating_point():
        return NotImplemented if isinstance(bound, float) else call(x, float(bound))
    return call(x.float(), bound) if isinstance(bound, float) else NotImplemented


def _clamp(x: Tensor, low: Any = None, high: Any = None) -> Any:
    """Integers with one bound, of which coremltools makes floats."""
    if x.is_floating_point() or (low is None) == (high is None):
        return NotImplemented
    if isinstance(low, float) or isinstance(high, float):
        return torch.clamp(x.float(), low, high)
    bound = torch.full((), high if low is None else low, dtype=x.dtype)
    return torch.minimum(x, bound) if low is None else torch.maximum(x, bound)


def _write(call: Any, x: Tensor, source: Tensor, *args: Any, **kwargs: Any) -> Any:
    """A slice written with values of another type."""
    if source.dtype == x.dtype:
        return NotImplemented
    return call(x, source.to(x.dtype), *args, **kwargs)


def _scatter_number(x: Tensor, dim: int, index: Tensor, value: Any) -> Any:
    """A whole number scattered among floats."""
    if not x.is_floating_point() or isinstance(value, float):
        return NotImplemented
    return _aten.scatter.value(x, dim, index, float(value))


def _hardtanh(x: Tensor, low: Any = -1, high: Any = 1) -> Any:
    """Bounds that are integers, or of integers."""
    if x.is_floating_point():
        floats = isinstance(low, float) and isinstance(high, float)
        return NotImplemented if floats else _aten.hardtanh.default(x, float(low), float(high))
    return torch.clamp(x, int(low), int(high))


def _bits(of_truths: Any, x: Any, y: Any) -> Any:
    """Bits of truth values. Of integers Core ML has no operation."""
    if not all(value.dtype is torch.bool for value in (x, y) if isinstance(value, Tensor)):
        return NotImplemented
    return of_truths(x, y)


def _and(x: Any, y: Any) -> Any:
    """The lowest bits of integers are the rest of a division."""
    if isinstance(x, Tensor) and type(y) is int and y > 0 and (y & (y + 1)) == 0:
        return torch.remainder(x, y + 1)
    return NotImplemented


def _of_one_type(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(x.dtype, y.dtype)
    return x.to(dtype), y.to(dtype)


NUMBER_TYPES: dict[Any, Callable[..., Any]] = {
    **{
        call: partial(_of_floats, call)
        for call in (getattr(_aten, name).default for name in _OF_FLOATS)
    },
    **dict.fromkeys((_aten.where.ScalarSelf, _aten.where.ScalarOther, _aten.where.Scalar), _where),
    **{
        call: partial(_clamp_by, call)
        for packet in (_aten.clamp_min, _aten.clamp_max)
        for call in (packet.default, packet.Tensor)
    },
    _aten.bitwise_or.Tensor: partial(_bits, torch.logical_or),
    _aten.bitwise_xor.Tensor: partial(_bits, torch.ne),
    _aten.bitwise_and.Scalar: _and,
    _aten.scatter.value: _scatter_number,
    _aten.clamp.default: _clamp,
    _aten.hardtanh.default: _hardtanh,
    _aten.relu6.default: lambda x: NotImplemented if x.is_floating_point() else x.clamp(0, 6),
    **{
        call: partial(_write, call)
        for call in (
            *(_aten.select_scatter.default, _aten.slice_scatter.default, _aten.copy.default),
        )
    },
}
