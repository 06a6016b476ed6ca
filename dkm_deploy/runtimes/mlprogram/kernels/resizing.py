"""Image resizing. Linear modes are spelled out, since torch has only some of the sampling modes."""

import numpy as np
import torch
from torch import Tensor

from dkm_deploy.errors import DkmError
from dkm_deploy.formats.mlpackage.limits import check_elements
from dkm_deploy.runtimes.mlprogram.kernels.registry import Ints, kernel


@kernel("upsample_nearest_neighbor", exact=True)
def _upsample_nearest(
    x: Tensor, scale_factor_height: float = 1.0, scale_factor_width: float = 1.0
) -> Tensor:
    for axis, scale in ((-2, scale_factor_height), (-1, scale_factor_width)):
        x = _nearest(x, axis, _floor_places(x.shape[axis], _multiply_length(x.shape[axis], scale)))
    return x


def _multiply_length(length: int, factor: float) -> int:
    """What a factor makes of a length: as coremltools has it, in float32."""
    return int(np.floor(np.float32(factor) * np.float32(length)))


def _floor_places(old: int, new: int) -> Tensor:
    """The old sample for each new one, by the sizes, as in coremltools' test of a factor."""
    check_elements([new])
    return torch.arange(new) * old // new


@kernel("resize_nearest_neighbor", exact=True)
def _resize_nearest(x: Tensor, target_size_height: int, target_size_width: int) -> Tensor:
    for axis, length in ((-2, target_size_height), (-1, target_size_width)):
        x = _nearest(x, axis, _floor_places(x.shape[axis], length))
    return x


@kernel("upsample_bilinear")
def _upsample_bilinear(
    x: Tensor,
    scale_factor_height: float = 1.0,
    scale_factor_width: float = 1.0,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> Tensor:
    if align_corners and half_pixel_centers:
        raise DkmError("align_corners and half_pixel_centers are both true, which is not defined")
    mode = "UNALIGN_CORNERS" if half_pixel_centers is not False else "DEFAULT"
    mode = "ALIGN_CORNERS" if align_corners else mode
    for axis, scale in ((-2, scale_factor_height), (-1, scale_factor_width)):
        old, length = x.shape[axis], _multiply_length(x.shape[axis], scale)
        if align_corners and length == 1 < old:
            raise DkmError(f"align_corners from {old} samples to one is not documented")
        x = _linear(x, axis, length, mode)
    return x


@kernel("resize_bilinear")
def _resize_bilinear(
    x: Tensor,
    target_size_height: int = 1,
    target_size_width: int = 1,
    sampling_mode: str = "DEFAULT",
) -> Tensor:
    x = _linear(x, -2, target_size_height, sampling_mode)
    return _linear(x, -1, target_size_width, sampling_mode)


@kernel("resize")
def _resize(
    x: Tensor,
    shape: Ints,
    resized_dims: int,
    interpolation_mode: str = "LINEAR",
    sampling_mode: str = "DEFAULT",
) -> Tensor:
    if interpolation_mode not in ("LINEAR", "NEAREST_NEIGHBOR"):
        raise DkmError(f"resize: interpolation_mode {interpolation_mode!r} is unknown")
    if not 0 < resized_dims <= len(shape) <= x.ndim:
        raise DkmError(f"resized_dims {resized_dims} and shape {shape} for {x.ndim} dimensions")
    for axis, length in zip(range(-resized_dims, 0), shape[-resized_dims:], strict=True):
        if length and interpolation_mode == "LINEAR":
            x = _linear(x, axis, length, sampling_mode)
        elif length:
            x = _nearest(x, axis, _round_places(x.shape[axis], length, sampling_mode))
    return x


def _round_places(old: int, new: int, mode: str) -> Tensor:
    """The old samples that lie nearest to the new ones, as coremltools' test of ``resize`` has it.

    Raises:
        DkmError: a new sample lies midway between two; which of them is taken is not documented.
    """
    check_elements([new])
    exact = grid(old, new, mode).clamp(0, old - 1)
    midway = (exact - exact.floor() - 0.5).abs() < 1e-9
    if midway.any():
        place = int(midway.nonzero()[0, 0])
        raise DkmError(
            f"sampling_mode {mode!r} has sample {place} of {new} midway between two of {old}; "
            "which of them NEAREST_NEIGHBOR takes is not documented"
        )
    return exact.round().long()


def _nearest(x: Tensor, axis: int, places: Tensor) -> Tensor:
    check_elements([x.numel() // max(1, x.shape[axis]), len(places)])
    return x.index_select(axis, places)


def _linear(x: Tensor, axis: int, length: int, mode: str) -> Tensor:
    if length == x.shape[axis]:
        return x
    check_elements([x.numel() // max(1, x.shape[axis]), length])
    places = grid(x.shape[axis], length, mode).clamp(0, x.shape[axis] - 1)
    low = places.floor().long()
    high = (low + 1).clamp(max=x.shape[axis] - 1)
    share = (places - low).to(x.dtype).reshape([-1] + [1] * (-axis - 1))
    return torch.lerp(x.index_select(axis, low), x.index_select(axis, high), share)


def grid(old: float, new: int, mode: str) -> Tensor:
    """Where each new sample lies among the old ones."""
    steps = torch.arange(new, dtype=torch.float64)
    if mode == "UNALIGN_CORNERS":
        return (steps + 0.5) * old / new - 0.5
    if mode == "DEFAULT":
        return steps * old / new
    if mode == "OFFSET_CORNERS":
        return (steps + 0.5) * max(1, old - 1) / new
    if mode not in ("ALIGN_CORNERS", "STRICT_ALIGN_CORNERS"):
        raise DkmError(f"sampling_mode {mode!r} is unknown")
    if new == 1:
        only = 0.0 if mode.startswith("STRICT") else (old - 1) / 2
        return torch.full((1,), only, dtype=torch.float64)
    return steps * (old - 1) / (new - 1)
