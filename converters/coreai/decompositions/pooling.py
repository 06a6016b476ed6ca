"""Pooling in forms that coreai-torch lacks or gets wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from converters.pool_windows import count_windows, of_each

_aten = torch.ops.aten


def _average(
    call: Any,
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """Means of windows that coreai-torch divides by the wrong number, or has no form for.

    They are means with zeros around, over the share of each window that counts.
    """
    sides = x.ndim - 2
    kernel, padding = of_each(kernel, sides), of_each(padding, sides)
    stride = of_each(stride, sides) if stride else kernel
    counts = count_include_pad or not any(padding)
    if divisor_override is None and counts and not ceil_mode:
        return NotImplemented
    behind = (
        _behind(x.shape[2:], kernel, stride, padding, [1] * sides) if ceil_mode else [0] * sides
    )
    around = _pad_sizes(padding, [side + more for side, more in zip(padding, behind, strict=True)])
    mean = call(_pad(x, around), kernel, stride)
    if divisor_override is not None:
        return mean * (prod(kernel) / divisor_override)
    if counts and not any(behind):
        return mean
    ones = torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype, device=x.device)
    if counts:
        padded = _pad_sizes(padding, padding)
        ones, around = _pad(ones, padded, 1.0), _pad_sizes([0] * sides, behind)
    return mean / call(_pad(ones, around), kernel, stride)


def _largest_2d(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> Any:
    """``ceil_mode`` as padding behind, which no window takes for its largest value."""
    kernel, padding = of_each(kernel, 2), of_each(padding, 2)
    stride, dilation = of_each(stride, 2) if stride else kernel, of_each(dilation, 2)
    if not ceil_mode:
        return NotImplemented
    behind = _behind(x.shape[-2:], kernel, stride, padding, dilation)
    wide = _pad(x, _pad_sizes([0, 0], behind), -float("inf"))
    values, places = _aten.max_pool2d_with_indices.default(
        wide, kernel, stride, padding, dilation, False
    )
    before, after = x.shape[-1], wide.shape[-1]
    if before != after:
        row = torch.div(places, after, rounding_mode="floor")
        places = places - row * (after - before)
    return values, places


def _adaptive_average(x: Tensor, size: Sequence[int]) -> Any:
    """Means of windows whose ends are the nearest places outside, a side at a time."""
    before = x.shape[-len(size) :]
    if len(size) == 2 and all(a >= b for a, b in zip(before, size, strict=True)):
        return NotImplemented
    for axis, (length, windows) in enumerate(zip(before, size, strict=True), -len(size)):
        if length == windows:
            continue
        number, place = torch.arange(windows)[:, None], torch.arange(length)[None]
        begin = torch.div(number * length, windows, rounding_mode="floor")
        end = torch.div((number + 1) * length + windows - 1, windows, rounding_mode="floor")
        share = ((place >= begin) & (place < end)).to(x.dtype)
        share = share / share.sum(1, keepdim=True)
        x = torch.matmul(x.movedim(axis, -1), share.T).movedim(-1, axis)
    return x


def _adaptive_largest(x: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The largest value of each window, and its place in the image; the windows as for means."""
    height, width = x.shape[-2:]
    values, places = [], []
    for top, bottom in _windows(height, size[0]):
        for left, right in _windows(width, size[1]):
            window = x[..., top:bottom, left:right].flatten(-2)
            place = window.argmax(-1)
            row = torch.div(place, right - left, rounding_mode="floor")
            column = place - row * (right - left)
            values.append(window.amax(-1))
            places.append((row + top) * width + column + left)
    shape = [*x.shape[:-2], *size]
    return torch.stack(values, -1).reshape(shape), torch.stack(places, -1).reshape(shape)


def _windows(length: int, count: int) -> list[tuple[int, int]]:
    """Begin and end of windows that cover a side, which may overlap."""
    return [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]


def _behind(
    lengths: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> list[int]:
    """What each side lacks for its last window in ``ceil_mode``; none begins in the padding."""
    sides = zip(lengths, kernel, stride, padding, dilation, strict=True)
    return [
        max(0, count_windows(length, size, step, pad, apart, ceil_mode=True)[1] - length - 2 * pad)
        for length, size, step, pad, apart in sides
    ]


def _pad_sizes(before: Sequence[int], behind: Sequence[int]) -> list[int]:
    """In the order of ``constant_pad_nd``: the last side first."""
    pairs = zip(reversed(before), reversed(behind), strict=True)
    return [size for pair in pairs for size in pair]


def _pad(x: Tensor, sizes: list[int], value: float = 0.0) -> Tensor:
    return _aten.constant_pad_nd.default(x, sizes, value) if any(sizes) else x


POOLING: dict[Any, Callable[..., Any]] = {
    _aten.avg_pool2d.default: partial(_average, _aten.avg_pool2d.default),
    _aten.avg_pool3d.default: partial(_average, _aten.avg_pool3d.default),
    _aten.max_pool2d_with_indices.default: _largest_2d,
    _aten._adaptive_avg_pool2d.default: _adaptive_average,
    _aten._adaptive_avg_pool3d.default: _adaptive_average,
    _aten.adaptive_max_pool2d.default: _adaptive_largest,
}
