"""Operators of ML programs in torch, one module a family. Importing the package registers all."""

from dkm_deploy.runtimes.mlprogram.kernels import (
    activation,
    convolution,
    elementwise,
    indexing,
    linear,
    listing,
    normalization,
    pooling,
    quantization,
    recurrent,
    reduction,
    resizing,
    sampling,
    scattering,
    shaping,
    spatial,
    special,
)
from dkm_deploy.runtimes.mlprogram.kernels.registry import KERNELS, Kernel

__all__ = [
    "KERNELS",
    "Kernel",
    "activation",
    "convolution",
    "elementwise",
    "indexing",
    "linear",
    "listing",
    "normalization",
    "pooling",
    "quantization",
    "recurrent",
    "reduction",
    "resizing",
    "sampling",
    "scattering",
    "shaping",
    "spatial",
    "special",
]
