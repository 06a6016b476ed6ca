"""The weights of a model that have no palette: what a file's dense tensors are compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dkm_deploy.model.checkpoint import as_array
from dkm_deploy.model.palettized import PaletteWeight, palettes

_OF_NORM = ("running_mean", "running_var", "weight", "bias")


@dataclass(frozen=True)
class DenseReference:
    """Dense weights.

    Attributes:
        tensors: parameters and buffers by qualified name, tied ones once, floating-point ones
            only. With them what modules hold as plain tensors, and weights that a parametrization
            other than a palette makes.
        epsilons: of the normalizations with running statistics, by the module's name.
    """

    tensors: Mapping[str, NDArray[Any]]
    epsilons: Mapping[str, float]

    def of_norm(self, name: str) -> dict[str, NDArray[Any]]:
        """The vectors of a normalization, by their names in it."""
        start = f"{name}." if name else ""
        found = {key: self.tensors.get(start + key) for key in _OF_NORM}
        return {key: array for key, array in found.items() if array is not None}


@torch.no_grad()
def dense_reference(model: nn.Module) -> DenseReference:
    """The dense weights of a model. The arrays share its memory where they can."""
    palettized, seen, found = palettes(model), set[int](), {}
    for name, tensor in _tensors(model):
        if id(tensor) not in seen and name not in palettized and tensor.is_floating_point():
            seen.add(id(tensor))
            found[name] = as_array(tensor)
    epsilons = {
        name: float(module.eps)
        for name, module in model.named_modules()
        if getattr(module, "running_var", None) is not None
        and isinstance(getattr(module, "eps", None), float)
    }
    return DenseReference(found, epsilons)


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every tensor that the modules compute with."""
    for prefix, module in model.named_modules():
        if ".parametrizations." in f".{prefix}.":
            continue  # what a weight is made from; the weight itself is its module's
        start = f"{prefix}." if prefix else ""
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        own += [(name, value) for name, value in vars(module).items() if torch.is_tensor(value)]
        own += [(name, getattr(module, name)) for name in _computed_weights(module)]
        yield from ((start + name, tensor) for name, tensor in own)


def _computed_weights(module: nn.Module) -> list[str]:
    """Weights that parametrizations make, none of which is a palette."""
    if not parametrize.is_parametrized(module):
        return []
    chains: Any = module.parametrizations
    return [
        name
        for name, chain in chains.items()
        if not any(isinstance(part, PaletteWeight) for part in chain)
    ]
