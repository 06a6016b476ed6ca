"""Fourier transforms, which Core AI lacks, as products with matrices of sines and cosines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import pi, prod
from typing import Any

import torch
from torch import Tensor

_aten = torch.ops.aten
_MOST = 4096  # points, for which the matrix has as many rows and columns
# The power of the number of points that a transform is divided by, as PyTorch numbers it.
_POWERS = {0: 0.0, 1: 0.5, 2: 1.0}


def _of_real(x: Tensor, dim: Sequence[int], normalization: int, onesided: bool) -> Any:
    """Complex values of real ones; half of them, along the last of ``dim``, if ``onesided``."""
    points = [x.shape[axis] for axis in dim]
    if max(points) > _MOST:
        return NotImplemented
    count = points[-1] // 2 + 1 if onesided else points[-1]
    real, imaginary = _turn(x, None, dim[-1], count, -1)
    for axis in dim[:-1]:
        real, imaginary = _turn(real, imaginary, axis, x.shape[axis], -1)
    return _complex(real, imaginary, prod(points) ** _POWERS[normalization])


def _of_complex(x: Tensor, dim: Sequence[int], normalization: int, forward: bool) -> Any:
    points = [x.shape[axis] for axis in dim]
    if max(points) > _MOST:
        return NotImplemented
    real, imaginary = torch.view_as_real(x).unbind(-1)
    for axis in dim:
        axis %= x.ndim
        real, imaginary = _turn(real, imaginary, axis, x.shape[axis], -1 if forward else 1)
    return _complex(real, imaginary, prod(points) ** _POWERS[normalization])


def _to_real(x: Tensor, dim: Sequence[int], normalization: int, last_dim_size: int) -> Any:
    """Real values of complex ones, of which half are given along the last of ``dim``."""
    points = [*(x.shape[axis] for axis in dim[:-1]), last_dim_size]
    if max(points) > _MOST:
        return NotImplemented
    real, imaginary = torch.view_as_real(x).unbind(-1)
    for axis in dim[:-1]:
        axis %= x.ndim
        real, imaginary = _turn(real, imaginary, axis, x.shape[axis], 1)
    axis = dim[-1] % x.ndim
    half = last_dim_size // 2 + 1
    number = torch.arange(half, device=real.device)
    # All but the first and, of an even number, the last stand for two.
    single = (number == 0) | (2 * number == last_dim_size)
    weight = torch.where(single, 1.0, 2.0)[:, None].to(real.dtype)
    cosine, sine = _waves(half, last_dim_size, last_dim_size, real)
    real, imaginary = (y.narrow(axis, 0, half).movedim(axis, -1) for y in (real, imaginary))
    wave = torch.matmul(real, weight * cosine) - torch.matmul(imaginary, weight * sine)
    return wave.movedim(-1, axis) / prod(points) ** _POWERS[normalization]


def _turn(
    real: Tensor, imaginary: Tensor | None, axis: int, count: int, sign: int
) -> tuple[Tensor, Tensor]:
    """``count`` values of the transform along a dimension, with ``exp(sign * i ...)``."""
    points = real.shape[axis]
    cosine, sine = _waves(points, count, points, real)
    sine = sine * sign
    real = real.movedim(axis, -1)
    first, second = torch.matmul(real, cosine), torch.matmul(real, sine)
    if imaginary is not None:
        imaginary = imaginary.movedim(axis, -1)
        first = first - torch.matmul(imaginary, sine)
        second = second + torch.matmul(imaginary, cosine)
    return first.movedim(-1, axis), second.movedim(-1, axis)


def _waves(rows: int, columns: int, points: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of 2 pi times row times column over points, (rows, columns)."""
    row = torch.arange(rows, device=like.device)[:, None]
    column = torch.arange(columns, device=like.device)[None]
    turns = row * column
    turns = turns - torch.div(turns, points, rounding_mode="floor") * points
    angle = turns.to(like.dtype) * (2 * pi / points)
    return angle.cos(), angle.sin()


def _complex(real: Tensor, imaginary: Tensor, scale: float) -> Tensor:
    return torch.complex(real / scale, imaginary / scale)


FOURIER: dict[Any, Callable[..., Any]] = {
    _aten._fft_r2c.default: _of_real,
    _aten._fft_c2c.default: _of_complex,
    _aten._fft_c2r.default: _to_real,
}
