"""What a user gives a model: tensors, in tuples, lists and mappings, beside None and numbers.

Files take tensors alone. Their order and names are those of ``torch.export``: depth first,
positional arguments before keyword ones, ``batch["left"]`` is ``batch_left``. All else is a
constant of the program.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from dkm_deploy._support.argument_checks import short
from dkm_deploy.errors import ArgumentError, DkmError
from dkm_deploy.nn_utils.in_float32 import tensor_in_float32

Inputs = Tensor | NDArray[Any] | tuple[Any, ...] | list[Any] | Mapping[str, Any]


def arguments(inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of ``forward``; arrays of numbers become tensors.

    Tensors of bfloat16 become float32, as the models that they are for; see
    :mod:`dkm_deploy.nn_utils.in_float32`.

    Raises:
        DkmError: ``inputs`` are of another type, or a keyword is no str.
    """
    if isinstance(inputs, (tuple, list)) and inputs and all(type(one) is int for one in inputs):
        raise ArgumentError(f"inputs are {tuple(inputs)}, a shape; give a tensor of this shape")
    if isinstance(inputs, (Tensor, np.ndarray)):
        return (_tensor(inputs),), {}
    if isinstance(inputs, Mapping):
        for name in inputs:
            if not isinstance(name, str):
                raise DkmError(f"inputs: {name!r} is not a name; a mapping gives keyword arguments")
        return (), {name: _tensors(value) for name, value in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        return tuple(_tensors(value) for value in inputs), {}
    raise ArgumentError(f"inputs are {short(inputs)}; give a tensor, tuple or dict")


def arrays_in(args: Any, kwargs: Any) -> dict[str, Any]:
    """Every tensor and array of nested arguments, in order, by the name that a program gives it.

    A positional argument that is called ``0`` is the first.

    Raises:
        DkmError: two have one name.
    """
    leaves = [*_named_arrays(args), *_named_arrays(kwargs)]
    found = {name: value for name, value in leaves if isinstance(value, (Tensor, np.ndarray))}
    if len(found) < sum(isinstance(value, (Tensor, np.ndarray)) for _, value in leaves):
        names = ", ".join(name for name, _ in leaves)
        raise DkmError(f"two inputs have the same name; the names are {names}")
    return found


def exported_name(name: str) -> str:
    """A name as ``torch.export`` and coremltools spell those of inputs."""
    return re.sub(r"[^a-z0-9]", "_", name.lower())


def _named_arrays(values: Any) -> list[tuple[str, Any]]:
    paths, _ = pytree.tree_flatten_with_path(values)
    return [("_".join(_key(key) for key in path), leaf) for path, leaf in paths]


def _key(key: Any) -> str:
    """One step of a path: a mapping's key, a place in a sequence, a field's name."""
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def _tensors(value: Any) -> Any:
    return pytree.tree_map(_tensor, value)


def _tensor(leaf: Any) -> Any:
    """As :func:`from_numpy`; tensors of bfloat16 as float32."""
    return tensor_in_float32(leaf) if isinstance(leaf, Tensor) else from_numpy(leaf)


def from_numpy(leaf: Any) -> Any:
    """A numpy array of numbers as a tensor that shares its memory where it can; else as it is."""
    if isinstance(leaf, np.generic):
        return leaf.item()
    if not isinstance(leaf, np.ndarray) or leaf.dtype.kind not in "biufc":
        return leaf
    native = leaf.astype(leaf.dtype.newbyteorder("="), copy=False)
    shared = native.flags.writeable and all(stride >= 0 for stride in native.strides)
    try:
        return torch.from_numpy(native if shared else native.copy())
    except TypeError:  # a type that PyTorch lacks
        return leaf


def call(model: nn.Module, inputs: Any) -> Any:
    """Run a model on a tensor, on a tuple of arguments or on a mapping of keyword arguments."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, (tuple, list)):
        return model(*inputs)
    return model(inputs)


def split_batch(batch: Any) -> tuple[Any, Any]:
    """Inputs and labels of a batch; labels are None if it has none."""
    if isinstance(batch, (tuple, list)):
        if len(batch) == 2:
            return batch[0], batch[1]
        if len(batch) == 1:
            return batch[0], None
        raise DkmError(f"a batch has {len(batch)} parts; it must be (inputs, labels) or inputs")
    if not isinstance(batch, (Tensor, np.ndarray, Mapping)):
        raise ArgumentError(f"a batch is {short(batch)}; it must be (inputs, labels) or inputs")
    return batch, None


def to_device(value: Any, device: torch.device) -> Any:
    """Tensors in nested tuples, lists and mappings, moved to a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: to_device(one, device) for key, one in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(to_device(one, device) for one in value)
    return value
