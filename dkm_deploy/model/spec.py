"""What names a model, its weights, its inputs and its metric on the command line."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dkm_deploy.errors import DkmError, reason_of
from dkm_deploy.model.calibration import BATCH, in_batches
from dkm_deploy.model.checkpoint import read_tensors
from dkm_deploy.model.metric import Metric
from dkm_deploy.model.pt2_program import SUFFIX, Pt2Program, fixed_batch, load_program
from dkm_deploy.nn_utils.copies import independent_copy
from dkm_deploy.nn_utils.state_guard import eval_copy

_DTYPES = {name: getattr(torch, name) for name in ("float32", "float16", "int64", "int32")}
_LABELS = "labels"


def is_program(spec: str | Path) -> bool:
    """Whether a model's name is that of a ``.pt2`` file."""
    return Path(spec).suffix == SUFFIX


def build_model(spec: str) -> Pt2Program:
    """The model of a ``.pt2`` file, or what ``package.module:callable`` gives without arguments.

    The current folder is searched too, as ``python -m`` does. A callable gives no example inputs.
    """
    if is_program(spec):
        return load_program(Path(spec))
    make = _import_object("model", spec)
    try:
        model = make()
    except Exception as error:  # any error of the user's own module
        raise DkmError(f"model {spec!r} cannot be made: {reason_of(error)}") from error
    if not isinstance(model, nn.Module):
        raise DkmError(f"model {spec!r} gave a {type(model).__name__}, not a torch.nn.Module")
    return Pt2Program(eval_copy(model), None, None)


def _import_object(what: str, spec: str) -> Any:
    """What ``package.module:name`` stands for."""
    module_name, _, attribute = spec.partition(":")
    if not attribute:
        raise DkmError(f"{what} {spec!r}: write it as package.module:callable")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # any error of the user's own module
        raise DkmError(f"{what} {spec!r} cannot be imported: {reason_of(error)}") from error


def metric_named(spec: str) -> Metric:
    """The metric ``package.module:callable``, which goes by this name in what is kept of it.

    Raises:
        DkmError: there is no such callable; and of the metric itself, if a call fails.
    """
    found = _import_object("metric", spec)
    if not callable(found):
        raise DkmError(f"metric {spec!r} is a {type(found).__name__}; it must be a callable")

    @functools.wraps(found)
    def checked(outputs: NDArray[Any], labels: NDArray[Any]) -> float:
        try:
            return float(found(outputs, labels))
        except Exception as error:  # any error of the user's own function
            raise DkmError(
                f"metric {spec!r} fails on outputs of shape {outputs.shape} and labels of shape "
                f"{labels.shape}: {reason_of(error)}"
            ) from error

    checked.__qualname__ = spec
    return checked


def plain_model(spec: str, weights: Path | None) -> Pt2Program:
    """A model with the weights of a plain safetensors checkpoint, or a ``.pt2`` file with its own.

    Raises:
        DkmError: weights are missing, not plain, or given for a ``.pt2`` file.
    """
    built = build_model(spec)
    return replace(built, model=with_weights(built.model, spec, weights))


def with_weights(model: nn.Module, spec: str, weights: Path | None) -> nn.Module:
    """A copy of the model with the weights of a plain checkpoint, or a program as it is."""
    if is_program(spec):
        if weights is not None:
            raise DkmError(f"{weights}: a plain checkpoint, but {spec} has weights; leave it out")
        return model
    if weights is None:
        raise DkmError(f"{spec}: --weights is missing, the safetensors checkpoint of this model")
    tensors, _ = read_tensors(weights)
    model = independent_copy(model)
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


def samples_for(path: Path, model: nn.Module) -> tuple[dict[str, Tensor], Tensor | None]:
    """As :func:`samples`, by the names that inputs have in the model's ``forward``.

    A lone tensor may have any name where ``forward`` asks for one input.

    Raises:
        DkmError: the file has an input that ``forward`` does not take, or lacks one that it needs.
    """
    inputs, labels = samples(path)
    parameters = inspect.signature(model.forward).parameters.values()
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        return inputs, labels  # takes what its signature does not tell
    taken = [p.name for p in parameters]
    needed = [p.name for p in parameters if p.default is p.empty]
    if len(inputs) == len(needed) == 1 and inputs.keys().isdisjoint(taken):
        inputs = dict(zip(needed, inputs.values(), strict=True))
    if not set(needed) <= inputs.keys() <= set(taken):
        raise DkmError(
            f"{path}: holds {', '.join(inputs)}, and forward() takes {', '.join(taken)}"
            + (f" and needs {', '.join(needed)}" if needed != taken else "")
            + "; name the tensors as it does"
        )
    return inputs, labels


def calibration_batches(path: Path, model: nn.Module) -> Iterator[Any]:
    """Batches of ``(inputs, labels)``, or of inputs alone, from a file by :func:`samples_for`.

    They are as large as the model is fixed to, or 16.
    """
    inputs, labels = samples_for(path, model)
    parts = inputs if labels is None else (inputs, labels)
    return in_batches(parts, fixed_batch(model) or BATCH)
