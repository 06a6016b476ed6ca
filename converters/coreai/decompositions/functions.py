"""Functions and reductions that coreai-torch lacks, in terms of those that it lowers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor

_aten = torch.ops.aten


def _with_number(call: Any, x: Tensor, other: Any) -> Tensor:
    """A call on a tensor and a number, as one on two tensors."""
    number = torch.full((), other, dtype=torch.result_type(x, other), device=x.device)
    return call(x.to(number.dtype), number)  # type: ignore[no-any-return]


def _number_with(call: Any, number: Any, other: Tensor) -> Tensor:
    return call(torch.full_like(other, number), other)  # type: ignore[no-any-return]


def _variance(
    x: Tensor,
    dim: Sequence[int] | None = None,
    *,
    correction: float | None = None,
    keepdim: bool = False,
) -> Tensor:
    """Mean square about the mean; ``correction`` is taken off the count, 1 if it is not given."""
    dims = list(range(x.ndim)) if not dim else list(dim)
    count = prod(x.shape[axis] for axis in dims)
    apart = (x - x.mean(dims, keepdim=True)).square()
    less = 1 if correction is None else correction
    return apart.mean(dims, keepdim=keepdim) * (count / max(count - less, 0.0))


def _extreme(call: Any, x: Tensor, dim: Sequence[int] = (), keepdim: bool = False) -> Any:
    """The extreme of all values, of which coreai-torch wants the dimensions."""
    return NotImplemented if dim else call(x, list(range(x.ndim)), keepdim)


def _argmin(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    if not x.is_floating_point() and not x.dtype.is_signed:
        return NotImplemented
    return torch.argmax(-x, dim, keepdim)


def _running_product(x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    """The product so far, in steps of twice the length."""
    x = x if dtype is None else x.to(dtype)
    reach, length = 1, x.shape[dim]
    while reach < length:
        first = x.narrow(dim, 0, reach)
        rest = x.narrow(dim, reach, length - reach) * x.narrow(dim, 0, length - reach)
        x, reach = torch.cat([first, rest], dim), 2 * reach
    return x


def _absolute(x: Tensor) -> Any:
    """The size of complex numbers."""
    if not x.is_complex():
        return NotImplemented
    real, imaginary = torch.view_as_real(x).unbind(-1)
    return torch.sqrt(real * real + imaginary * imaginary)


def _trilinear(
    first: Tensor,
    second: Tensor,
    third: Tensor,
    expand1: Sequence[int],
    expand2: Sequence[int],
    expand3: Sequence[int],
    sumdim: Sequence[int],
    _: int = 1,
) -> Tensor:
    """The sum of the products of three tensors, with dimensions put in where they are expanded."""
    for axis in expand1:
        first = first.unsqueeze(axis)
    for axis in expand2:
        second = second.unsqueeze(axis)
    for axis in expand3:
        third = third.unsqueeze(axis)
    return (first * second * third).sum(list(sumdim))


def _rrelu(
    x: Tensor,
    noise: Tensor,
    lower: Any = 0.125,
    upper: Any = 1 / 3,
    training: bool = False,
    *_: Any,
) -> Any:
    """Outside training the slope is the mean of its bounds."""
    if training:
        return NotImplemented
    return _aten.leaky_relu.default(x, (lower + upper) / 2), noise


def _product(x: Tensor, other: Any) -> Any:
    """Of two truth values, which Core AI cannot multiply."""
    truths = x.dtype is torch.bool and isinstance(other, Tensor) and other.dtype is torch.bool
    return torch.logical_and(x, other) if truths else NotImplemented


def _empty(size: Sequence[int], *_: Any, **how: Any) -> Tensor:
    """What is written to before it is read may as well be zeros."""
    return torch.zeros(list(size), dtype=how.get("dtype"), device=how.get("device"))


FUNCTIONS: dict[Any, Callable[..., Any]] = {
    **{
        packet.Scalar: partial(_with_number, packet.Tensor)
        for packet in (
            *(_aten.bitwise_and, _aten.bitwise_or, _aten.bitwise_xor),
            *(_aten.remainder, _aten.fmod),
        )
    },
    _aten.remainder.Scalar_Tensor: partial(_number_with, _aten.remainder.Tensor),
    _aten.isnan.default: lambda x: x != x,
    _aten.var.correction: _variance,
    _aten.var_mean.correction: lambda x, dim=None, *, correction=None, keepdim=False: (
        _variance(x, dim, correction=correction, keepdim=keepdim),
        x.mean(dim, keepdim=keepdim),
    ),
    _aten.amax.default: partial(_extreme, _aten.amax.default),
    _aten.amin.default: partial(_extreme, _aten.amin.default),
    _aten.argmin.default: _argmin,
    _aten.cumprod.default: _running_product,
    _aten.empty_permuted.default: _empty,
    _aten.abs.default: _absolute,
    _aten.mul.Tensor: _product,
    _aten._trilinear.default: _trilinear,
    _aten.rrelu_with_noise_functional.default: _rrelu,
}
