"""Outputs by channel: what a bias or a BatchNorm takes up of the gap between two models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

_FLOOR = 1e-3  # of a channel's usual variance behind a BatchNorm, which is weight**2


@dataclass(frozen=True)
class Channels:
    """How gaps between outputs count; a projection and a scaling, which commute.

    Attributes:
        dim: of the channels, counted from the last.
        weight: ``(channels,)``, what the gaps of a channel are multiplied with.
        shift_free: whether something behind the weight takes up a shift of each channel, so that
            only what varies counts.
    """

    dim: int
    weight: Tensor
    shift_free: bool

    def __call__(self, gaps: Sequence[Tensor]) -> list[Tensor]:
        """The gaps as they count."""
        wide = [1] * (-self.dim - 1)
        mean = channel_mean(gaps, self.dim).reshape(-1, *wide) if self.shift_free else 0
        return [(gap - mean) * self.weight.reshape(-1, *wide) for gap in gaps]


def channel_dim(layer: nn.Module) -> int:
    """The dimension of a layer's output that holds its channels, counted from the last."""
    return -len(layer.kernel_size) - 1 if isinstance(layer, _ConvNd) else -1


def channel_mean(tensors: Sequence[Tensor], dim: int) -> Tensor:
    """The mean of each channel over all tensors, ``(channels,)``."""
    channels = [_by_channel(t, dim) for t in tensors]
    return torch.stack([c.sum(0) for c in channels]).sum(0) / sum(len(c) for c in channels)


def norm_weight(norm: _BatchNorm) -> Tensor:
    """By what a BatchNorm multiplies each channel, without the sign."""
    weight = torch.rsqrt(cast(Tensor, norm.running_var) + norm.eps)
    return weight if norm.weight is None else weight * norm.weight.detach().abs()


def match_norm(norm: _BatchNorm, actual: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    """Give the outputs of a BatchNorm the mean and variance by channel that they should have.

    Those of both are taken on the same samples, so that what few samples are off by cancels. The
    variance is corrected by the running variance, the mean by the bias, or by the running mean of
    a BatchNorm that has none.

    Args:
        norm: in eval mode, with running statistics; changed in place.
        actual: its outputs, channels in dimension 1.
        wanted: what they should be.
    """
    mean, variance = _moments(actual)
    wanted_mean, wanted_variance = _moments(wanted)
    square = 1 if norm.weight is None else norm.weight.double().square()
    floor = _FLOOR * square + torch.finfo(torch.float32).tiny
    gain = ((wanted_variance + floor) / (variance + floor)).sqrt()
    shift = wanted_mean - gain * mean
    running = cast(Tensor, norm.running_var)
    spread = (running.double() + norm.eps).sqrt() / gain
    running.copy_((spread.square() - norm.eps).clamp(min=0))
    if norm.bias is None:
        cast(Tensor, norm.running_mean).sub_(shift * spread)
    else:
        norm.bias.copy_(gain * norm.bias.double() + shift)


def _moments(tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel, float64; channels in dimension 1."""
    channels = [_by_channel(t, 1).double() for t in tensors]
    mean = channel_mean(channels, -1)
    squares = torch.stack([(c - mean).square().sum(0) for c in channels]).sum(0)
    return mean, squares / sum(len(c) for c in channels)


def _by_channel(tensor: Tensor, dim: int) -> Tensor:
    """``(values, channels)``."""
    return tensor.movedim(dim, -1).reshape(-1, tensor.shape[dim])
