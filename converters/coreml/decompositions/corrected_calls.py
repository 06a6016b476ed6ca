"""Calls that coremltools gets wrong, in terms of others that it gets right."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from converters.scaled_sums import SCALED_SUMS

_aten = torch.ops.aten
_REDUCTIONS = (
    *(_aten.sum.default, _aten.sum.dim_IntList, _aten.mean.default, _aten.mean.dim),
    _aten.linalg_vector_norm.default,
)
_RUNNING = (_aten.cumsum.default, _aten.cumprod.default)
_SAME = 20.0  # threshold of softplus
_TINY = 1e-8  # eps of cosine_similarity


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


def _subtract_scaled(call: Any, x: Tensor, other: Any, alpha: Any = 1) -> Any:
    """``other - alpha * x``, of which coremltools drops the factor."""
    return NotImplemented if alpha == 1 else call(x * alpha, other)


def _of_type(call: Any, x: Tensor, *args: Any, dtype: torch.dtype | None = None) -> Any:
    """A reduction of values made of another type first, which coremltools leaves out."""
    if dtype is None or dtype == x.dtype:
        return NotImplemented
    return call(x.to(dtype), *args, dtype=dtype)


def _running(call: Any, x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Any:
    """The same along a dimension counted from the end, of which Core ML has the last one only."""
    if dim >= -1:
        return _of_type(call, x, dim, dtype=dtype)
    return call(x if dtype is None else x.to(dtype), dim % x.ndim, dtype=dtype)


def _grouped_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *args: Any,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Attention with fewer heads of keys and values than of queries, which coremltools refuses."""
    if not enable_gqa:
        return NotImplemented
    k, v = (x.repeat_interleave(q.shape[-3] // x.shape[-3], -3) for x in (k, v))
    return _aten.scaled_dot_product_attention.default(q, k, v, *args, scale=scale)


def _clamp(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Any:
    """Values between bounds that may cross: ``high`` counts then, for coremltools ``low``."""
    x = x if low is None else torch.maximum(x, low)
    return x if high is None else torch.minimum(x, high)


def _softplus(x: Tensor, beta: float = 1, threshold: float = 20) -> Any:
    """Softplus that is ``x`` from ``threshold / beta`` on, which coremltools leaves out.

    From 20 on both are the same: ``exp(-20)`` is less than what float32 rounds off there.
    """
    if threshold >= _SAME:
        return NotImplemented
    return torch.where(x * beta > threshold, x, _aten.softplus.default(x, beta, _SAME))


def _elu(x: Tensor, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Any:
    """ELU with its factors, of which coremltools knows ``alpha`` only."""
    if scale == input_scale == 1:
        return NotImplemented
    below = x if input_scale == 1 else x * input_scale
    return torch.where(x > 0, x, _aten.elu.default(below, alpha)) * scale


def _log_softmax(x: Tensor, dim: int, dtype: torch.dtype | None = None) -> Any:
    """Logarithm of softmax: coremltools has the smallest number there is for all below it."""
    x = x if dtype is None else x.to(dtype)
    x = x - x.amax(dim, keepdim=True)
    return x - x.exp().sum(dim, keepdim=True).log()


def _cosine(x: Tensor, other: Tensor, dim: int = 1, eps: float = 1e-8) -> Any:
    """Cosine of norms that are at least ``eps`` each: coremltools looks at their product."""
    if eps <= _TINY:
        return NotImplemented
    x, other = (
        y / torch.linalg.vector_norm(y, dim=dim, keepdim=True).clamp(min=eps) for y in (x, other)
    )
    return (x * other).sum(dim)


def _with_statistics(x: Tensor, *args: Any) -> Any:
    """Instance norm by running statistics, in place of which coremltools takes those of ``x``."""
    weight, bias, mean, variance, of_input, momentum, eps, _ = args
    if of_input:
        return NotImplemented
    return _aten.batch_norm.default(x, weight, bias, mean, variance, False, momentum, eps, False)


def _rms_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Any:
    """Root mean square norm: coremltools multiplies ``eps`` by the largest square in a row.

    As there, rows are divided by their largest value first, so that no square overflows float16;
    or by ``eps ** 0.5``, if that is more, so that rows of zeros stay zero.
    """
    dims = list(range(-len(shape), 0))
    least = (torch.finfo(x.dtype).eps if eps is None else eps) ** 0.5
    largest = x.abs().amax(dims, keepdim=True).clamp(min=least)
    x = x / largest
    x = x * torch.rsqrt(x.square().mean(dims, keepdim=True) + (least / largest).square())
    return x if weight is None else x * weight


def _cross(x: Tensor, other: Tensor, dim: int | None = None) -> Any:
    """Cross product along the first dimension of length 3: coremltools takes the first of all."""
    if dim is not None:
        return NotImplemented
    return _aten.cross.default(x, other, list(x.shape).index(3))


def _atan2(y: Tensor, x: Tensor) -> Tensor:
    """The angle of a point: coremltools has 0 for those left of the origin, at its height."""
    turned = torch.where(y < 0, -math.pi, math.pi)
    near = torch.atan(y / torch.where(x == 0, torch.ones_like(x), x))
    upright = torch.sign(y) * (math.pi / 2)
    return torch.where(x == 0, upright, torch.where(x < 0, near + turned, near))


def _is_one(value: Any) -> bool:
    return isinstance(value, (int, float)) and value == 1


CORRECTED: dict[Any, Callable[..., Any]] = {
    _aten.argmax.default: partial(_place, _aten.argmax.default),
    _aten.argmin.default: partial(_place, _aten.argmin.default),
    _aten.floor_divide.default: _floor,
    _aten.div.Tensor_mode: _floor,
    _aten.div.Scalar_mode: _floor,
    **SCALED_SUMS,
    _aten.rsub.Tensor: partial(_subtract_scaled, _aten.rsub.Tensor),
    _aten.rsub.Scalar: partial(_subtract_scaled, _aten.rsub.Scalar),
    **{op: partial(_of_type, op) for op in _REDUCTIONS},
    **{op: partial(_running, op) for op in _RUNNING},
    _aten.scaled_dot_product_attention.default: _grouped_attention,
    _aten.clamp.Tensor: _clamp,
    _aten.softplus.default: _softplus,
    _aten.elu.default: _elu,
    _aten.log_softmax.int: _log_softmax,
    _aten.cosine_similarity.default: _cosine,
    _aten.instance_norm.default: _with_statistics,
    _aten.rms_norm.default: _rms_norm,
    _aten.cross.default: _cross,
    _aten.atan2.default: _atan2,
}
