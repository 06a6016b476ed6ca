"""Faults that a converter, or an edit of a file, may put into a frozen model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.parity_limits.models import Net

Fault = Callable[[Net], object]


def _program(name: str) -> Fault:
    def plant(model: Net) -> None:
        model.fault = name

    return plant


def _scaled(name: str, share: float) -> Fault:
    return lambda model: model.get_buffer(name).mul_(1 + share)


def _zeroed(name: str) -> Fault:
    return lambda model: model.get_parameter(name).data.zero_()


def _noisy(name: str, share: float = 0.01) -> Fault:
    """Noise on a dense weight, relative to its root mean square."""

    def plant(model: Net) -> None:
        weight = model.get_parameter(name).data
        noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
        weight += share * weight.square().mean().sqrt() * noise

    return plant


def _epsilon(name: str, eps: float) -> Fault:
    def plant(model: Net) -> None:
        model.get_submodule(name).eps = eps  # type: ignore[assignment]

    return plant


def _output(change: Callable[[Tensor, Tensor], Tensor]) -> Fault:
    """A fault of what comes out, from the inputs and the right output."""

    def plant(model: Net) -> None:
        right = type(model).forward

        def forward(self: Net, x: Tensor) -> Tensor:
            return change(x, right(self, x))

        model.__class__ = type("Faulty", (type(model),), {"forward": forward})

    return plant


def _swapped(_: Tensor, y: Tensor) -> Tensor:
    return torch.cat([y[:, 1:2], y[:, :1], y[:, 2:]], 1)


def _one_zeroed(_: Tensor, y: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(y[:, :1]), y[:, 1:]], 1)


def _reversed(x: Tensor, y: Tensor) -> Tensor:
    return torch.where(x.abs().amax(1, keepdim=True) > 100, y, y.flip(1))


def _one_sample(x: Tensor, y: Tensor) -> Tensor:
    """The sample with the largest first value has its answer reversed."""
    return torch.where(x[:, :1] > 2.2, y.flip(1), y)


def _last_token(_: Tensor, y: Tensor) -> Tensor:
    return torch.cat([y[:, :-1], y[:, -2:-1]], 1)


def _bias(module: str) -> Fault:
    return _zeroed(f"{module}.bias")


# Kind of model, layers that the recipe leaves dense, and the fault.
FAULTS: dict[str, tuple[str, tuple[str, ...], Fault]] = {
    "99 of 100 reversed": ("loud sample", (), _output(_reversed)),
    "one sample wrong": ("perceptron", (), _output(_one_sample)),
    "class scores flattened": ("detector", (), _program("flat")),
    "class scores reversed": ("detector", (), _program("reversed")),
    "one channel zeroed": ("convolutions", (), _output(_one_zeroed)),
    "two channels swapped": ("convolutions", (), _output(_swapped)),
    "BatchNorm mean 1 % off": ("convolutions", (), _scaled("norm.running_mean", 0.01)),
    "BatchNorm variance 1 % off": ("convolutions", (), _scaled("norm.running_var", 0.01)),
    "last BatchNorm mean 1 % off": ("convolutions", (), _scaled("other.running_mean", 0.01)),
    "last BatchNorm variance 1 % off": ("convolutions", (), _scaled("other.running_var", 0.01)),
    "BatchNorm variance 1 % off, detector": ("detector", (), _scaled("norm.running_var", 0.01)),
    "zeroed bias in the middle": ("convolutions", (), _bias("body")),
    "zeroed bias of the last layer": ("convolutions", (), _bias("head")),
    "zeroed bias before BatchNorm": ("depthwise", (), _bias("deep")),
    "dense convolution with 1 % noise": ("convolutions", ("body",), _noisy("body.weight")),
    "dense linear with 1 % noise": ("perceptron", ("second",), _noisy("second.weight")),
    "dense projection with 1 % noise": ("transformer block", ("qkv",), _noisy("qkv.weight")),
    "BatchNorm epsilon 1e-5 to 1e-3": ("convolutions", (), _epsilon("norm", 1e-3)),
    "last BatchNorm epsilon 1e-5 to 1e-3": ("convolutions", (), _epsilon("other", 1e-3)),
    "BatchNorm epsilon 1e-5 to 1e-4": ("convolutions", (), _epsilon("norm", 1e-4)),
    "LayerNorm epsilon 1e-5 to 1e-3": ("transformer block", (), _epsilon("after", 1e-3)),
    "last LayerNorm epsilon 1e-5 to 1e-3": ("transformer block", (), _epsilon("last", 1e-3)),
    "GELU tanh in place of erf": ("transformer block", (), _program("gelu")),
    "attention mask off by one": ("transformer block", (), _program("mask")),
    "last token wrong": ("transformer block", (), _output(_last_token)),
    "missing ReLU": ("convolutions", (), _program("relu")),
    "missing ReLU, perceptron": ("perceptron", (), _program("relu")),
}
