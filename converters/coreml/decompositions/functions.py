"""Functions of single values that coremltools lacks, in terms of those that it knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_aten = torch.ops.aten


def _asinh(x: Tensor) -> Tensor:
    """Of the absolute value, since the sum loses what is left of a negative one."""
    size = x.abs()
    return x.sign() * torch.log(size + torch.sqrt(size * size + 1))


def _acosh(x: Tensor) -> Tensor:
    return torch.log(x + torch.sqrt(x * x - 1))


def _fmod(x: Tensor, y: Any) -> Tensor:
    """The rest of a division that has the sign of ``x``; ``remainder`` has that of ``y``."""
    return torch.remainder(x.abs(), abs(y)) * x.sign()


def _signbit(x: Tensor) -> Tensor:
    """Whether a number is negative; of the two zeros the reciprocals tell."""
    if not x.is_floating_point():
        return x < 0
    return torch.where(x == 0, 1 / x < 0, x < 0)


def _copysign(x: Tensor, y: Any) -> Tensor:
    y = y if isinstance(y, Tensor) else torch.full_like(x, y)
    return torch.where(_signbit(y), -x.abs(), x.abs())


def _fmax(x: Tensor, y: Tensor) -> Tensor:
    """The greater of two numbers, and the one that is one if the other is not."""
    return torch.where(x != x, y, torch.where(y != y, x, torch.maximum(x, y)))


def _fmin(x: Tensor, y: Tensor) -> Tensor:
    return torch.where(x != x, y, torch.where(y != y, x, torch.minimum(x, y)))


def _nan_to_num(
    x: Tensor, nan: float | None = None, posinf: float | None = None, neginf: float | None = None
) -> Tensor:
    """By choices: coremltools writes to the places found, and fails where there are none."""
    limits = torch.finfo(x.dtype) if x.is_floating_point() else None
    if limits is None:
        return x.clone()
    above = limits.max if posinf is None else posinf
    below = limits.min if neginf is None else neginf
    x = torch.where(x != x, torch.full_like(x, nan or 0.0), x)
    x = torch.where(x == float("inf"), torch.full_like(x, above), x)
    return torch.where(x == -float("inf"), torch.full_like(x, below), x)


def _lerp(x: Tensor, end: Tensor, weight: Any) -> Any:
    """From the nearer end, as PyTorch has it, so that either is met."""
    if isinstance(weight, Tensor):
        low = weight.abs() < 0.5
        return torch.where(low, x + weight * (end - x), end - (end - x) * (1 - weight))
    return x + weight * (end - x) if abs(weight) < 0.5 else end - (end - x) * (1 - weight)


def _shift_left(x: Tensor, y: Any) -> Any:
    return x * _power_of_two(x, y)


def _shift_right(x: Tensor, y: Any) -> Any:
    return torch.div(x, _power_of_two(x, y), rounding_mode="floor")


def _power_of_two(x: Tensor, y: Any) -> Any:
    return torch.exp2(y.float()).to(x.dtype) if isinstance(y, Tensor) else 2**y


FUNCTIONS: dict[Any, Callable[..., Any]] = {
    _aten.asinh.default: _asinh,
    _aten.acosh.default: _acosh,
    _aten.fmod.Tensor: _fmod,
    _aten.fmod.Scalar: _fmod,
    _aten.signbit.default: _signbit,
    _aten.copysign.Tensor: _copysign,
    _aten.copysign.Scalar: _copysign,
    _aten.fmax.default: _fmax,
    _aten.fmin.default: _fmin,
    _aten.nan_to_num.default: _nan_to_num,
    _aten.trunc.default: lambda x: torch.where(x < 0, torch.ceil(x), torch.floor(x)),
    _aten.erfc.default: lambda x: 1 - torch.erf(x),
    _aten.hypot.default: lambda x, y: torch.sqrt(x * x + y * y),
    _aten.lerp.Scalar: _lerp,
    _aten.lerp.Tensor: _lerp,
    _aten.__lshift__.Scalar: _shift_left,
    _aten.__lshift__.Tensor: _shift_left,
    _aten.__rshift__.Scalar: _shift_right,
    _aten.__rshift__.Tensor: _shift_right,
    _aten.bitwise_left_shift.Tensor: _shift_left,
    _aten.bitwise_left_shift.Tensor_Scalar: _shift_left,
    _aten.bitwise_right_shift.Tensor: _shift_right,
    _aten.bitwise_right_shift.Tensor_Scalar: _shift_right,
}
