"""Outputs by channel: what a bias or a BatchNorm takes up of the gap between two models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

_FLOOR = 1e-3  # of the usual variance behind a BatchNorm: dead channels keep their factor
_LEAST_GAIN = 0.1


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


def fit_norm(norm: _BatchNorm, actual: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    """Bring the outputs of a BatchNorm nearest to what they should be, with a line a channel.

    That is least squares of ``wanted`` on ``actual``. The gain is taken up by the running
    variance, the shift by the bias, or by the running mean of a BatchNorm that has none.

    Args:
        norm: in eval mode, with running statistics; changed in place.
        actual: its outputs, channels in dimension 1.
        wanted: what they should be, for the same samples.
    """
    ours, theirs = ([_by_channel(t, 1).double() for t in some] for some in (actual, wanted))
    mean, wanted_mean = (channel_mean(some, -1) for some in (ours, theirs))
    centred = [part - mean for part in ours]
    pairs = zip(centred, theirs, strict=True)
    products = channel_mean([a * (b - wanted_mean) for a, b in pairs], -1)
    variance = channel_mean([part.square() for part in centred], -1)
    square = 1 if norm.weight is None else norm.weight.double().square()
    floor = _FLOOR * square + torch.finfo(torch.float32).tiny
    gain = ((products + floor) / (variance + floor)).clamp(min=_LEAST_GAIN)
    _take_up(norm, gain, wanted_mean - gain * mean)


def _take_up(norm: _BatchNorm, gain: Tensor, shift: Tensor) -> None:
    """Make a BatchNorm give ``gain * output + shift``."""
    variance = cast(Tensor, norm.running_var)
    spread = (variance.double() + norm.eps).sqrt() / gain
    variance.copy_((spread.square() - norm.eps).clamp(min=0))
    if norm.bias is None:
        cast(Tensor, norm.running_mean).sub_(shift * spread)
    else:
        norm.bias.copy_(gain * norm.bias.double() + shift)


def _by_channel(tensor: Tensor, dim: int) -> Tensor:
    """``(values, channels)``."""
    return tensor.movedim(dim, -1).reshape(-1, tensor.shape[dim])
