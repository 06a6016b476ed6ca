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


def row_weights(wanted: Sequence[Tensor], dim: int) -> list[Tensor]:
    """How much each row of channels counts: the usual one half, and the less the larger it is.

    That is ``1 / (1 + |row|**2 / median(|row|**2))``. Without it the few tokens of a transformer
    whose outputs are many times as large as the others' decide every mean and sum of squares,
    though the LayerNorm behind them makes all rows alike.

    Args:
        wanted: outputs of a layer.
        dim: of their channels, counted from the last.

    Returns:
        A tensor for each, of its shape but for 1 channel; float32.
    """
    squares = [tensor.float().square().sum(dim, keepdim=True) for tensor in wanted]
    usual = torch.cat([square.flatten() for square in squares]).median()
    usual = usual.clamp(min=torch.finfo(torch.float32).tiny)
    return [1 / (1 + square / usual) for square in squares]


def channel_mean(tensors: Sequence[Tensor], weights: Sequence[Tensor], dim: int) -> Tensor:
    """The weighted mean of each channel over all tensors, ``(channels,)``, float32.

    Args:
        tensors: outputs.
        weights: of :func:`row_weights`.
        dim: of the channels, counted from the last.
    """
    pairs = zip(tensors, weights, strict=True)
    sums = [_by_channel(tensor * weight, dim).sum(0) for tensor, weight in pairs]
    return torch.stack(sums).sum(0) / torch.stack([weight.sum() for weight in weights]).sum()


def centre(tensors: Sequence[Tensor], weights: Sequence[Tensor], dim: int) -> list[Tensor]:
    """Without the mean of each channel; takes what :func:`channel_mean` takes."""
    mean = channel_mean(tensors, weights, dim).reshape(-1, *[1] * (-dim - 1))
    return [tensor - mean for tensor in tensors]


def fit_norm(
    norm: _BatchNorm,
    actual: Sequence[Tensor],
    wanted: Sequence[Tensor],
    weights: Sequence[Tensor],
) -> None:
    """Bring the outputs of a BatchNorm nearest to what they should be, with a line a channel.

    That is least squares of ``wanted`` on ``actual``. The gain is taken up by the running
    variance, the shift by the bias, or by the running mean of a BatchNorm that has none.

    Args:
        norm: in eval mode, with running statistics; changed in place.
        actual: its outputs, channels in dimension 1.
        wanted: what they should be, for the same samples.
        weights: of :func:`row_weights`.
    """
    dim = 1 - actual[0].ndim
    mean, wanted_mean = (channel_mean(some, weights, dim) for some in (actual, wanted))
    ours, theirs = (centre(some, weights, dim) for some in (actual, wanted))
    products = channel_mean([a * b for a, b in zip(ours, theirs, strict=True)], weights, dim)
    variance = channel_mean([part.square() for part in ours], weights, dim)
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
