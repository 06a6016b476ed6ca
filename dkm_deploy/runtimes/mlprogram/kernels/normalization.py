"""Normalisation layers."""

import torch
from torch import Tensor
from torch.nn import functional

from dkm_deploy.errors import DkmError
from dkm_deploy.runtimes.mlprogram.kernels.places import dimensions
from dkm_deploy.runtimes.mlprogram.kernels.registry import Ints, kernel


@kernel("batch_norm")
def _batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    return functional.batch_norm(x, mean, variance, gamma, beta, eps=epsilon)


@kernel("instance_norm")
def _instance_norm(
    x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: float = 1e-5
) -> Tensor:
    return functional.instance_norm(x, weight=gamma, bias=beta, eps=epsilon)


@kernel("layer_norm")
def _layer_norm(
    x: Tensor,
    axes: Ints = (),
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    dims = sorted(dimensions(axes, x.ndim)) or list(range(x.ndim))
    shape = [x.shape[d] for d in dims]
    if dims == list(range(dims[0], x.ndim)):
        return functional.layer_norm(x, shape, gamma, beta, epsilon)
    variance, mean = torch.var_mean(x, dims, correction=0, keepdim=True)
    spread = [x.shape[d] if d in dims else 1 for d in range(x.ndim)]
    result = (x - mean) / torch.sqrt(variance + epsilon)
    result = result if gamma is None else result * gamma.reshape(spread)
    return result if beta is None else result + beta.reshape(spread)


@kernel("l2_norm")
def _l2_norm(x: Tensor, epsilon: float = 1e-6) -> Tensor:
    return x / torch.sqrt(x.square().sum((-3, -2, -1), keepdim=True) + epsilon)


@kernel("local_response_norm")
def _local_response_norm(
    x: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    if x.ndim < 3:
        raise DkmError(f"local_response_norm takes three dimensions or more, not {x.ndim}")
    # NeuralNetwork.proto: the channels are dimension -3. coremltools' own test of three dimensions,
    # which Core ML passes, says so too, where the documentation of MIL does not. A window of an
    # even size is PyTorch's, which coremltools' tests compare with.
    images = x.reshape(-1, *x.shape[-3:])
    return functional.local_response_norm(images, size, alpha, beta, k).reshape(x.shape)
