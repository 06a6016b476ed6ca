"""Max pooling with dilation, which Core ML lacks, one side of the image at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

_aten = torch.ops.aten


def _largest(
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
    sides = x.ndim - 2 if len(kernel) == 1 else len(kernel)
    lengths = x.shape[-sides:]
    places = torch.arange(lengths.numel(), device=x.device).reshape(lengths).expand(x.shape)
    steps = stride or kernel
    for axis in range(-1, -sides - 1, -1):
        size, step, pad, apart = (
            each[0] if len(each) == 1 else each[axis] for each in (kernel, steps, padding, dilation)
        )
        length, reach = x.shape[axis], apart * (size - 1) + 1
        windows = (length + 2 * pad - reach) // step + 1
        if ceil_mode:
            windows = -((reach - length - 2 * pad) // step) + 1
            windows -= (windows - 1) * step >= length + pad  # none begins in the padding behind
        behind = max(0, (windows - 1) * step + reach - length - pad)
        around = [0, 0] * (-axis - 1) + [pad, behind]
        if pad or behind:
            x = _aten.constant_pad_nd.default(x, around, -float("inf"))
            places = _aten.constant_pad_nd.default(places, around, 0)
        shifted = [
            tuple(
                _aten.slice.Tensor(y, axis, begin, begin + (windows - 1) * step + 1, step)
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
    _aten.max_pool2d_with_indices.default: _largest,
    _aten.max_pool3d_with_indices.default: _largest,
}
