"""What names a model, its weights and its inputs on the command line."""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dkm_deploy.errors import DkmError, first_line
from dkm_deploy.recipe import Recipe
from dkm_deploy.training.calibration import in_batches
from dkm_deploy.training.checkpoint import is_palettized, load, read_tensors
from dkm_deploy.training.freeze import palettize

_DTYPES = {name: getattr(torch, name) for name in ("float32", "float16", "int64", "int32")}
_LABELS = "labels"


def build(spec: str) -> nn.Module:
    """Call ``package.module:callable`` without arguments; it must give a module.

    The current folder is searched too, as ``python -m`` does.
    """
    module_name, _, attribute = spec.partition(":")
    if not attribute:
        raise DkmError(f"model {spec!r}: write it as package.module:callable")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        make = getattr(importlib.import_module(module_name), attribute)
        model = make()
    except Exception as error:  # any error of the user's own module
        raise DkmError(f"model {spec!r} cannot be made: {first_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise DkmError(f"model {spec!r} gave a {type(model).__name__}, not a torch.nn.Module")
    return model.eval()


def frozen_model(spec: str, weights: Path, recipe: Recipe | None) -> nn.Module:
    """The frozen model: from a palettized checkpoint, or k-means on a plain one with a recipe."""
    if is_palettized(weights):
        if recipe is not None:
            raise DkmError(f"{weights}: palettized already; --bits and --recipe need a plain one")
        return load(weights, build(spec))
    if recipe is None:
        raise DkmError(f"{weights}: a plain checkpoint; give --bits or --recipe to palettize it")
    return palettize(plain_model(spec, weights), recipe)


def plain_model(spec: str, weights: Path) -> nn.Module:
    """A model with the weights of a plain safetensors checkpoint."""
    tensors, _ = read_tensors(weights)
    model = copy.deepcopy(build(spec))
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise DkmError(f"{weights}: this checkpoint does not belong to {spec}: {reason}") from error
    return model.eval()


def example(specs: Sequence[str]) -> tuple[Tensor, ...]:
    """Example inputs from specs such as ``1x3x224x224`` or ``1x128:int64``; seeded noise, or 0s."""
    generator = torch.Generator().manual_seed(0)
    return tuple(_example(spec, generator) for spec in specs)


def _example(spec: str, generator: torch.Generator) -> Tensor:
    sizes, _, dtype_name = spec.partition(":")
    dtype = _DTYPES.get(dtype_name or "float32")
    try:
        shape = [int(size) for size in sizes.split("x")]
    except ValueError:
        shape = []
    if dtype is None or not shape or min(shape) < 1:
        raise DkmError(
            f"--input {spec!r}: write a shape as 1x3x224x224, with :{', :'.join(_DTYPES)} if needed"
        )
    if not dtype.is_floating_point:
        return torch.zeros(shape, dtype=dtype)
    return torch.randn(shape, generator=generator).to(dtype)


def samples(path: Path) -> tuple[dict[str, Tensor], Tensor | None]:
    """Inputs by name, and the labels if there are any, from a safetensors file."""
    tensors, _ = read_tensors(path)
    labels = tensors.pop(_LABELS, None)
    if not tensors:
        raise DkmError(f"{path}: it holds no inputs, only {_LABELS!r} or nothing")
    return tensors, labels


def calibration_batches(path: Path) -> Iterator[Any]:
    """Batches of ``(inputs, labels)``, or of inputs alone, from a file as :func:`samples` reads."""
    inputs, labels = samples(path)
    return in_batches(inputs if labels is None else (inputs, labels))
