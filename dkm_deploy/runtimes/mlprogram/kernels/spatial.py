"""Operators that trade channels or batches against height and width, and windows."""

import torch
from torch import Tensor
from torch.nn import functional

from dkm_deploy.runtimes.mlprogram.kernels.places import dimension
from dkm_deploy.runtimes.mlprogram.kernels.registry import Ints, Tensors, kernel


@kernel("pixel_shuffle", exact=True)
def _pixel_shuffle(x: Tensor, upscale_factor: int) -> Tensor:
    return functional.pixel_shuffle(x, upscale_factor)


@kernel("pixel_unshuffle", exact=True)
def _pixel_unshuffle(x: Tensor, downscale_factor: int) -> Tensor:
    return functional.pixel_unshuffle(x, downscale_factor)


@kernel("depth_to_space", exact=True)
def _depth_to_space(x: Tensor, block_size: int) -> Tensor:
    # Unlike pixel_shuffle, the place in the block is the slow part of the channel's number.
    n, c, h, w = x.shape
    parts = x.reshape(n, block_size, block_size, c // block_size**2, h, w)
    return parts.permute(0, 3, 4, 1, 5, 2).reshape(n, -1, h * block_size, w * block_size)


@kernel("space_to_depth", exact=True)
def _space_to_depth(x: Tensor, block_size: int) -> Tensor:
    n, c, h, w = x.shape
    parts = x.reshape(n, c, h // block_size, block_size, w // block_size, block_size)
    return parts.permute(0, 3, 5, 1, 2, 4).reshape(n, -1, h // block_size, w // block_size)


@kernel("space_to_batch", exact=True)
def _space_to_batch(x: Tensor, block_shape: Ints, paddings: Ints) -> Tensor:
    (high, wide), (top, bottom, left, right) = block_shape, paddings
    x = functional.pad(x, [left, right, top, bottom])
    n, c, h, w = x.shape
    parts = x.reshape(n, c, h // high, high, w // wide, wide)
    return parts.permute(3, 5, 0, 1, 2, 4).reshape(-1, c, h // high, w // wide)


@kernel("batch_to_space", exact=True)
def _batch_to_space(x: Tensor, block_shape: Ints, crops: Ints) -> Tensor:
    (high, wide), (top, bottom, left, right) = block_shape, crops
    n, c, h, w = x.shape
    parts = x.reshape(high, wide, n // (high * wide), c, h, w)
    x = parts.permute(2, 3, 4, 0, 5, 1).reshape(-1, c, h * high, w * wide)
    return functional.pad(x, [-left, -right, -top, -bottom])


@kernel("sliding_windows", exact=True)
def _sliding_windows(x: Tensor, axis: int, size: int, stride: int = 1) -> Tensor:
    axis = dimension(axis, x.ndim)
    return x.unfold(axis, size, stride).movedim(-1, axis + 1)


@kernel("reverse_sequence", exact=True)
def _reverse_sequence(x: Tensor, lengths: Tensor, seq_axis: int = 0, batch_axis: int = 0) -> Tensor:
    parts = [
        torch.cat([part.narrow(seq_axis, 0, n).flip(seq_axis), _after(part, seq_axis, n)], seq_axis)
        for part, n in zip(torch.split(x, 1, batch_axis), lengths.tolist(), strict=True)
    ]
    return torch.cat(parts, batch_axis)


def _after(x: Tensor, axis: int, start: int) -> Tensor:
    return x.narrow(axis, start, x.shape[axis] - start)


@kernel("reshape_like", exact=True)
def _reshape_like(
    x: Tensor, ref_tensors: Tensors, begins: Tensors, ends: Tensors, end_masks: Tensors
) -> Tensor:
    shape: list[int] = []
    for reference, begin, end, open_end in zip(ref_tensors, begins, ends, end_masks, strict=True):
        shape += reference.shape[int(begin) : None if bool(open_end) else int(end)]
    return x.reshape(shape)
