"""Models of this benchmark's own, by the building blocks of PyTorch that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.zoo.architecture import SAMPLES, Architecture, images, tokens
from benchmarks.zoo.own_networks import (
    Cells,
    Detector,
    Graph,
    Lambda,
    MixtureOfExperts,
    Recurrent,
    Sampler,
    Spectrogram,
    TemporalBlock,
    Transformer,
    TwoTowers,
    UNet,
    VisionTransformer,
    Written,
)


def _norms(kind: Callable[[], nn.Module]) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 3), kind(), nn.ReLU(), nn.Conv2d(16, 8, 3))


def _pools(kind: Callable[[], nn.Module]) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), kind(), nn.Conv2d(16, 8, 1))


def _volume(pool: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv3d(2, 8, 3, padding=1), nn.ReLU(), pool, nn.Conv3d(8, 4, 1))


def _pairs() -> Any:
    return torch.randn(SAMPLES, 6, 8), (torch.rand(SAMPLES, 6, 6) < 0.5).float()


def _tower() -> Any:
    return {"user": torch.randint(100, (SAMPLES, 4)), "item": torch.randint(100, (SAMPLES,))}


def _perceptron(activation: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(16, 32), activation, nn.Linear(32, 32), activation)


def _rows(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(SAMPLES, *shape)


_TOKENS = partial(tokens, 64)
_IMAGE = partial(images, 32)
_CHANNELS = 16

_RECURRENT = {
    "rnn": partial(Recurrent, nn.RNN, nonlinearity="relu"),
    "gru": partial(Recurrent, nn.GRU, num_layers=2),
    "gru both ways": partial(Recurrent, nn.GRU, bidirectional=True),
    "lstm": partial(Recurrent, nn.LSTM, num_layers=2, bias=False),
    "lstm both ways": partial(Recurrent, nn.LSTM, bidirectional=True),
    "lstm with projections": partial(Recurrent, nn.LSTM, proj_size=12),
}
_NORMS: dict[str, Callable[[], nn.Module]] = {
    "batch norm": partial(nn.BatchNorm2d, _CHANNELS),
    "batch norm without statistics": partial(nn.BatchNorm2d, _CHANNELS, track_running_stats=False),
    "instance norm": partial(nn.InstanceNorm2d, _CHANNELS, affine=True),
    "group norm": partial(nn.GroupNorm, 4, _CHANNELS),
    "local response norm": partial(nn.LocalResponseNorm, 3),
}
_POOLS: dict[str, Callable[[], nn.Module]] = {
    "average pool without padding": partial(
        nn.AvgPool2d, 3, 2, 1, count_include_pad=False, ceil_mode=True
    ),
    "max pool with dilation": partial(nn.MaxPool2d, 3, 2, 1, dilation=2),
    "power pool": partial(nn.LPPool2d, 2, 3),
    "adaptive pools": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.AdaptiveMaxPool2d(4)),
    "pixel shuffle": lambda: nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(64, 64, 1),
                                           nn.PixelShuffle(2)),
    "reflected": partial(nn.ReflectionPad2d, (1, 2, 3, 0)),
    "replicated": partial(nn.ReplicationPad2d, 2),
}  # fmt: skip
_ACTIVATIONS: dict[str, nn.Module] = {
    name: kind()
    for name, kind in {
        "celu": nn.CELU, "elu": nn.ELU, "gelu": nn.GELU, "hardshrink": nn.Hardshrink,
        "hardswish": nn.Hardswish, "leaky relu": nn.LeakyReLU, "log sigmoid": nn.LogSigmoid,
        "mish": nn.Mish, "prelu": nn.PReLU, "relu6": nn.ReLU6, "selu": nn.SELU,
        "softplus": nn.Softplus, "softshrink": nn.Softshrink, "softsign": nn.Softsign,
        "tanhshrink": nn.Tanhshrink,
    }.items()
}  # fmt: skip

_MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
    **{name: (make, _TOKENS) for name, make in _RECURRENT.items()},
    "lstm cell": (partial(Cells, nn.LSTMCell), _rows(6, 16)),
    "gru cell": (partial(Cells, nn.GRUCell), _rows(6, 16)),
    **{f"u-net, {m}": (partial(UNet, m), _IMAGE) for m in ("transposed", "nearest", "bilinear",
                                                           "bicubic", "nearest-exact")},
    "temporal convolutions": (
        lambda: nn.Sequential(nn.Conv1d(4, 16, 1), *(TemporalBlock(2**n) for n in range(3))),
        _rows(4, 32),
    ),
    "transformer": (Transformer, lambda: (tokens(64), tokens(64, 6))),
    "vision transformer": (VisionTransformer, _IMAGE),
    "spatial transformer": (Sampler, partial(images, 16)),
    "two towers": (TwoTowers, _tower),
    "graph": (Graph, _pairs),
    "mixture of experts": (MixtureOfExperts, _rows(8, 16)),
    "spectrogram": (Spectrogram, _rows(512)),
    "written in place": (Written, _rows(16)),
    "detector": (Detector, _IMAGE),
    **{name: (partial(_norms, kind), _IMAGE) for name, kind in _NORMS.items()},
    **{name: (partial(_pools, kind), _IMAGE) for name, kind in _POOLS.items()},
    "volume, largest": (lambda: _volume(nn.MaxPool3d(2)), _rows(2, 8, 8, 8)),
    "volume, average": (lambda: _volume(nn.AdaptiveAvgPool3d(2)), _rows(2, 8, 8, 8)),
    "volume, upsampled": (lambda: _volume(nn.Upsample(scale_factor=2)), _rows(2, 4, 4, 4)),
    "depthwise separable": (
        lambda: nn.Sequential(nn.Conv2d(3, 24, 3, groups=3), nn.Conv2d(24, 16, 1), nn.Hardswish(),
                              nn.Conv2d(16, 16, 3, groups=16, dilation=2), nn.Flatten(1, 2)),
        _IMAGE,
    ),
    **{f"perceptron, {name}": (partial(_perceptron, kind), _rows(16))
       for name, kind in _ACTIVATIONS.items()},
    "perceptron, gated": (
        lambda: nn.Sequential(nn.Linear(16, 32), nn.GLU(), nn.Linear(16, 8),
                              Lambda(lambda x: functional.normalize(x, dim=-1))),
        _rows(16),
    ),
}  # fmt: skip


def own_models() -> list[Architecture]:
    """All of them; they need nothing but PyTorch."""

    def making(make: Callable[[], nn.Module], inputs: Callable[[], Any]) -> Any:
        return lambda: (make(), inputs())

    return [
        Architecture(f"own/{name}", "own", None, making(*parts)) for name, parts in _MODELS.items()
    ]
