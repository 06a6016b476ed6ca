"""Quantization of activations: affine, with one scale, or one for each channel."""

import torch
from torch import Tensor

from dkm_deploy.errors import DkmError
from dkm_deploy.runtimes.mlprogram.kernels.registry import kernel

_RANGES = {"int8": (-128, 127), "uint8": (0, 255), "int4": (-8, 7), "uint4": (0, 15)}


@kernel("quantize")
def _quantize(
    input: Tensor,  # noqa: A002  # the operation's name for it
    scale: Tensor,
    output_dtype: str,
    zero_point: Tensor | None = None,
    axis: int = 0,
) -> Tensor:
    if output_dtype not in _RANGES:
        raise DkmError(f"output_dtype {output_dtype!r} is unknown; known: {', '.join(_RANGES)}")
    steps = torch.round(input / _along(scale, input, axis))
    if zero_point is not None:
        steps = steps + _along(zero_point, input, axis)
    return steps.clamp(*_RANGES[output_dtype])


@kernel("dequantize")
def _dequantize(
    input: Tensor,  # noqa: A002  # the operation's name for it
    scale: Tensor,
    zero_point: Tensor | None = None,
    axis: int = 0,
) -> Tensor:
    steps = input if zero_point is None else input - _along(zero_point, input, axis)
    return steps * _along(scale, input, axis)


def _along(values: Tensor, x: Tensor, axis: int) -> Tensor:
    """One value a channel along ``axis``, in the rank of ``x``; a single value as it is."""
    if values.ndim == 0:
        return values
    shape = [1] * x.ndim
    shape[axis] = -1
    return values.reshape(shape)
