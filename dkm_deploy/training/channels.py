"""Outputs by channel: what a bias or a BatchNorm takes up of the gap between two models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

_FLOOR = 1e-3  # of the usual variance behind a BatchNorm: dead channels keep their factor
_LEAST_GAIN = 0.1


def channel_dim(layer: nn.Module) -> int:
    """The dimension of a layer's output that holds its channels, counted from the last."""
    return -len(layer.kernel_size) - 1 if isinstance(layer, _ConvNd) else -1


def channel_mean(tensors: Sequence[Tensor], dim: int) -> Tensor:
    """The mean of each channel over all tensors, ``(channels,)``."""
    channels = [_by_channel(t, dim) for t in tensors]
    return torch.stack([c.sum(0) for c in channels]).sum(0) / sum(len(c) for c in channels)


def centred(tensors: Sequence[Tensor], dim: int) -> list[Tensor]:
    """Without the mean of each channel over all tensors; ``dim`` is counted from the last."""
    mean = channel_mean(tensors, dim).reshape(-1, *[1] * (-dim - 1))
    return [tensor - mean for tensor in tensors]


def fit_norm(norm: _BatchNorm, actual: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    """Bring the outputs of a BatchNorm nearest to what they should be, with a line a channel.

    That is least squares of ``wanted`` on ``actual``. The gain is taken up by the running
    variance, the shift by the bias, or by the running mean of a BatchNorm that has none.

    Args:
        norm: in eval mode, with running statistics; changed in place.
        actual: its outputs, channels in dimension 1.
        wanted: what they should be, for the same samples.
    """
    mean, wanted_mean = (channel_mean(some, 1) for some in (actual, wanted))
    ours, theirs = (centred(some, 1 - actual[0].ndim) for some in (actual, wanted))
    products = channel_mean([a * b for a, b in zip(ours, theirs, strict=True)], 1)
    variance = channel_mean([part.square() for part in ours], 1)
    square = 1 if norm.weight is None else norm.weight.float().square()
    floor = _FLOOR * square + torch.finfo(torch.float32).tiny
    gain = ((products + floor) / (variance + floor)).clamp(min=_LEAST_GAIN)
    _take_up(norm, gain, wanted_mean - gain * mean)


def _take_up(norm: _BatchNorm, gain: Tensor, shift: Tensor) -> None:
    """Make a BatchNorm give ``gain * output + shift``."""
    variance = cast(Tensor, norm.running_var)
    spread = (variance.float() + norm.eps).sqrt() / gain
    variance.copy_((spread.square() - norm.eps).clamp(min=0))
    if norm.bias is None:
        cast(Tensor, norm.running_mean).sub_(shift * spread)
    else:
        norm.bias.copy_(gain * norm.bias.float() + shift)


def _by_channel(tensor: Tensor, dim: int) -> Tensor:
    """Float32, ``(values, channels)``."""
    return tensor.movedim(dim, -1).reshape(-1, tensor.shape[dim]).float()
