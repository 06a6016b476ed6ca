"""Activation functions."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from dkm_deploy.errors import DkmError
from dkm_deploy.runtimes.mlprogram.kernels.registry import kernel

_GELU: dict[str, Callable[[Tensor], Tensor]] = {
    "EXACT": functional.gelu,
    "TANH_APPROXIMATION": lambda x: functional.gelu(x, approximate="tanh"),
    "SIGMOID_APPROXIMATION": lambda x: x * torch.sigmoid(1.702 * x),
}


@kernel("relu", exact=True)
def _relu(x: Tensor) -> Tensor:
    return torch.relu(x)


@kernel("relu6", exact=True)
def _relu6(x: Tensor) -> Tensor:
    return functional.relu6(x)


@kernel("clamped_relu")
def _clamped_relu(x: Tensor, alpha: float, beta: float) -> Tensor:
    return torch.where(x < 0, alpha * x, x).clamp(max=beta)


@kernel("elu")
def _elu(x: Tensor, alpha: float) -> Tensor:
    return functional.elu(x, alpha)


@kernel("gelu")
def _gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    if mode not in _GELU:
        raise DkmError(f"gelu mode {mode!r} is unknown; known: {', '.join(_GELU)}")
    return _GELU[mode](x)


@kernel("leaky_relu")
def _leaky_relu(x: Tensor, alpha: float) -> Tensor:
    return functional.leaky_relu(x, alpha)


@kernel("linear_activation")
def _linear_activation(x: Tensor, alpha: float, beta: float) -> Tensor:
    return alpha * x + beta


@kernel("prelu")
def _prelu(x: Tensor, alpha: Tensor) -> Tensor:
    return functional.prelu(x, alpha)


@kernel("scaled_tanh")
def _scaled_tanh(x: Tensor, alpha: float, beta: float) -> Tensor:
    return alpha * torch.tanh(beta * x)


@kernel("sigmoid")
def _sigmoid(x: Tensor) -> Tensor:
    return torch.sigmoid(x)


@kernel("sigmoid_hard")
def _sigmoid_hard(x: Tensor, alpha: float, beta: float) -> Tensor:
    return (alpha * x + beta).clamp(0, 1)


@kernel("silu")
def _silu(x: Tensor) -> Tensor:
    return functional.silu(x)


@kernel("softmax")
def _softmax(x: Tensor, axis: int = -1) -> Tensor:
    return torch.softmax(x, axis)


@kernel("softplus")
def _softplus(x: Tensor) -> Tensor:
    return torch.logaddexp(x, torch.zeros_like(x))


@kernel("softplus_parametric")
def _softplus_parametric(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    shape = [-1] + [1] * (x.ndim - 2)
    return alpha.reshape(shape) * _softplus(beta.reshape(shape) * x)


@kernel("softsign")
def _softsign(x: Tensor) -> Tensor:
    return functional.softsign(x)


@kernel("thresholded_relu", exact=True)
def _thresholded_relu(x: Tensor, alpha: float) -> Tensor:
    return torch.where(x < alpha, 0.0, x)
