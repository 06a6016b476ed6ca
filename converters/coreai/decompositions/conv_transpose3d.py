"""Transposed convolutions of three dimensions, which coreai-torch lacks, as two of two each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv_transpose2d


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, *how: Any) -> Any:
    """A decomposition of ``aten.convolution``; NotImplemented for those that can stay.

    The first transposed convolution spreads every slice of ``x`` over its plane, for each slice of
    the kernel alone: these are channels. The second, whose kernel is the identity, puts them where
    they belong in the depth, and adds them up.

    Args:
        x: ``(batch, inputs, depth, height, width)``.
        weight: ``(inputs, outputs / groups, depth, height, width)``; read as it is.
        bias: ``(outputs,)``.
        how: the operation's other arguments: stride, padding and dilation of each dimension,
            whether it is transposed, output padding of each dimension, groups.

    Returns:
        ``(batch, outputs, depth, height, width)``.
    """
    stride, padding, dilation, transposed, extra, groups = how
    if not transposed or x.ndim != 5:
        return NotImplemented
    slices, outputs = weight.shape[2], weight.shape[1] * groups
    planes = conv_transpose2d(
        x.movedim(2, 1).flatten(0, 1),
        weight.flatten(1, 2),
        None,
        stride[1:],
        padding[1:],
        extra[1:],
        groups,
        dilation[1:],
    )
    columns = planes.reshape(x.shape[0], x.shape[2], outputs * slices, -1).movedim(1, 2)
    places = torch.eye(slices, dtype=x.dtype, device=x.device).repeat(outputs, 1)
    stacked = conv_transpose2d(
        columns,
        places[:, None, :, None],
        bias,
        (stride[0], 1),
        (padding[0], 0),
        (extra[0], 0),
        outputs,
        (dilation[0], 1),
    )
    return stacked.reshape(x.shape[0], outputs, -1, *planes.shape[2:])
