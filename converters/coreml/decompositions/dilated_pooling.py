"""Max pooling with dilation, which Core ML lacks, one side of the image at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from converters.pool_windows import count_windows, of_each

_aten = torch.ops.aten


def _largest(
    sides: int,
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> Any:
    """The largest value of each window and its place, the first one of equals, as in PyTorch.

    The last side comes first, so that of equals the first place in the image stays.
    """
    if all(apart == 1 for apart in dilation) or not x.is_floating_point():
        return NotImplemented
    lengths = x.shape[-sides:]
    places = torch.arange(lengths.numel(), device=x.device).reshape(lengths).expand(x.shape)
    of_sides = [of_each(each, sides) for each in (kernel, stride or kernel, padding, dilation)]
    for axis in range(-1, -sides - 1, -1):
        size, step, pad, apart = (each[axis] for each in of_sides)
        length, reach = x.shape[axis], apart * (size - 1) + 1
        count, end = count_windows(length, size, step, pad, apart, ceil_mode=ceil_mode)
        behind = max(0, end - length - pad)
        around = [0, 0] * (-axis - 1) + [pad, behind]
        if pad or behind:
            x = _aten.constant_pad_nd.default(x, around, -float("inf"))
            places = _aten.constant_pad_nd.default(places, around, 0)
        shifted = [
            tuple(
                _aten.slice.Tensor(y, axis, begin, begin + (count - 1) * step + 1, step)
                for y in (x, places)
            )
            for begin in range(0, reach, apart)
        ]
        x, places = shifted[0]
        for values, others in shifted[1:]:
            places = torch.where(values > x, others, places)
            x = torch.maximum(x, values)
    return x, places


DILATED_POOLING: dict[Any, Callable[..., Any]] = {
    _aten.max_pool2d_with_indices.default: partial(_largest, 2),
    _aten.max_pool3d_with_indices.default: partial(_largest, 3),
}
