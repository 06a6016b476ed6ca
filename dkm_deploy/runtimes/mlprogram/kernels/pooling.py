"""Pooling, one to three spatial dimensions."""

from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from dkm_deploy.errors import DkmError
from dkm_deploy.runtimes.mlprogram.kernels.padding import explicit_pads, flat, symmetric
from dkm_deploy.runtimes.mlprogram.kernels.registry import Ints, kernel

_MAX = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_AVERAGE = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


@kernel("max_pool", exact=True)
def _max_pool(
    x: Tensor,
    kernel_sizes: Ints,
    strides: Ints = (),
    pad_type: str = "valid",
    pad: Ints = (),
    ceil_mode: bool = False,
) -> Tensor:
    x, strides, padding = _pad_for_torch(
        x, kernel_sizes, strides, pad_type, pad, ceil_mode, fill=float("-inf")
    )
    return _MAX[x.ndim - 2](x, kernel_sizes, strides, padding, ceil_mode=ceil_mode)


@kernel("avg_pool")
def _avg_pool(
    x: Tensor,
    kernel_sizes: Ints,
    strides: Ints = (),
    pad_type: str = "valid",
    pad: Ints = (),
    ceil_mode: bool = False,
    exclude_padding_from_average: bool = False,
) -> Tensor:
    arguments = (kernel_sizes, strides, pad_type, pad, ceil_mode)
    padded, strides, padding = _pad_for_torch(x, *arguments, fill=0.0)
    average = _AVERAGE[x.ndim - 2]
    if padded is x:
        include = not exclude_padding_from_average
        return average(x, kernel_sizes, strides, padding, ceil_mode, include)
    result = average(padded, kernel_sizes, strides)
    if not exclude_padding_from_average:
        return result
    ones, *_ = _pad_for_torch(torch.ones_like(x), *arguments, fill=0.0)
    return result / average(ones, kernel_sizes, strides)


@kernel("l2_pool")
def _l2_pool(
    x: Tensor,
    kernel_sizes: Ints,
    strides: Ints = (),
    pad_type: str = "valid",
    pad: Ints = (),
    ceil_mode: bool = False,
) -> Tensor:
    arguments = (kernel_sizes, strides, pad_type, pad, ceil_mode)
    squares, strides, padding = _pad_for_torch(x.square(), *arguments, fill=0.0)
    mean = _AVERAGE[x.ndim - 2](squares, kernel_sizes, strides, padding, ceil_mode)
    return (mean * prod(kernel_sizes)).sqrt()


def _pad_for_torch(
    x: Tensor,
    kernel_sizes: Ints,
    strides: Ints,
    pad_type: str,
    pad: Ints,
    ceil_mode: bool,
    *,
    fill: float,
) -> tuple[Tensor, Ints, Ints]:
    """Input, strides and padding for torch, which pads only evenly and at most half a kernel."""
    dims = x.ndim - 2
    strides = strides or (1,) * dims
    pads = explicit_pads(pad_type, pad, x.shape[2:], kernel_sizes, strides)
    padding = symmetric(pads)
    if padding is not None and all(p <= k // 2 for p, k in zip(padding, kernel_sizes, strict=True)):
        return x, strides, padding
    if ceil_mode:
        raise DkmError(f"ceil_mode with padding {pad} and kernel {kernel_sizes} is not supported")
    return functional.pad(x, flat(pads), value=fill), strides, (0,) * dims
