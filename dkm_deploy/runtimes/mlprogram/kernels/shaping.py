"""Operators that move values without changing them: shapes, joins, splits, padding."""

from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from dkm_deploy.errors import DkmError
from dkm_deploy.formats.mlpackage.limits import check_elements
from dkm_deploy.runtimes.mlprogram.kernels.places import IOS17, dimension, dimensions
from dkm_deploy.runtimes.mlprogram.kernels.registry import Ints, Tensors, kernel


@kernel("reshape", exact=True)
def _reshape(x: Tensor, shape: Ints, opset: int) -> Tensor:
    # A 0 takes the matching length of x, counted from the right; 1 if x has no such dimension.
    if opset < IOS17 and 0 in shape and len(shape) != x.ndim:
        raise DkmError(f"shape {shape} has a 0; before iOS 17 it must have as many numbers as x")
    lengths = [1] * max(0, len(shape) - x.ndim) + list(x.shape)
    aligned = lengths[len(lengths) - len(shape) :]
    return x.reshape([n or kept for n, kept in zip(shape, aligned, strict=True)])


@kernel("transpose", exact=True)
def _transpose(x: Tensor, perm: Ints) -> Tensor:
    return x.permute(perm)


@kernel("expand_dims", exact=True)
def _expand_dims(x: Tensor, axes: Ints) -> Tensor:
    rank = x.ndim + len(axes)
    for axis in sorted(dimensions(axes, rank)):
        x = x.unsqueeze(axis)
    return x


@kernel("squeeze", exact=True)
def _squeeze(x: Tensor, axes: Ints = ()) -> Tensor:
    return x.squeeze(axes) if axes else x.squeeze()


@kernel("concat", exact=True)
def _concat(values: Tensors, axis: int, interleave: bool = False) -> Tensor:
    if all(value.ndim == 0 for value in values):  # as computed shapes are put together
        return torch.stack(values)
    if not interleave:
        return torch.cat(values, axis)
    dim = dimension(axis, values[0].ndim)
    return torch.stack(values, dim + 1).flatten(dim, dim + 1)


@kernel("stack", exact=True)
def _stack(values: Tensors, axis: int) -> Tensor:
    return torch.stack(values, axis)


@kernel("split", exact=True)
def _split(x: Tensor, axis: int, num_splits: int = 0, split_sizes: Ints = ()) -> tuple[Tensor, ...]:
    sizes = list(split_sizes) or [x.shape[axis] // num_splits] * num_splits
    return torch.split(x, sizes, axis)


@kernel("tile", exact=True)
def _tile(x: Tensor, reps: Ints) -> Tensor:
    if len(reps) != x.ndim or min(reps, default=1) < 1:
        raise DkmError(f"reps are {reps}; there must be {x.ndim}, each at least 1")
    check_elements([x.numel(), *reps])
    return x.repeat(reps)


@kernel("reverse", exact=True)
def _reverse(x: Tensor, axes: Ints = ()) -> Tensor:
    return x.flip(axes or tuple(range(x.ndim)))


@kernel("flatten2d", exact=True)
def _flatten2d(x: Tensor, axis: int = 1) -> Tensor:
    return x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:]))


@kernel("pad", exact=True)
def _pad(x: Tensor, pad: Ints, mode: str = "constant", constant_val: float = 0.0) -> Tensor:
    # MIL pads the last dimensions in order, torch from the last one backwards.
    pairs = list(zip(pad[::2], pad[1::2], strict=True))
    lengths = x.shape[x.ndim - len(pairs) :]
    if min(pad, default=0) < 0 or len(pairs) > x.ndim:
        raise DkmError(f"pad is {pad}; it must have two numbers, at least 0, a dimension")
    check_elements(n + sum(pair) for n, pair in zip(lengths, pairs, strict=True))
    if mode == "constant":
        return functional.pad(x, [n for pair in reversed(pairs) for n in pair], value=constant_val)
    if mode not in ("reflect", "replicate"):
        raise DkmError(f"pad mode {mode!r} is unknown")
    for dim, (before, after) in enumerate(pairs, start=x.ndim - len(pairs)):
        most = x.shape[dim] - (mode == "reflect")
        if max(before, after) > most:
            raise DkmError(f"pad {pad} is more than mode {mode!r} has values for, {most}")
        x = x.index_select(dim, _mirror_places(x.shape[dim], before, after, mode))
    return x


def _mirror_places(length: int, before: int, after: int, mode: str) -> Tensor:
    places = torch.arange(-before, length + after)
    if mode == "replicate":
        return places.clamp(0, length - 1)
    places = places.abs()
    return torch.where(places < length, places, 2 * (length - 1) - places)


@kernel("crop", exact=True)
def _crop(x: Tensor, crop_height: Ints, crop_width: Ints) -> Tensor:
    (top, bottom), (left, right) = crop_height, crop_width
    if min(top, bottom, left, right) < 0:
        raise DkmError(
            f"crop_height is {crop_height}, crop_width {crop_width}; it must be 0 or more"
        )
    return functional.pad(x, [-left, -right, -top, -bottom])
