"""The model that users give to public functions, checked: one line says what is wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from os import PathLike
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from dkm_deploy._support.argument_checks import short
from dkm_deploy.errors import ArgumentError, DkmError
from dkm_deploy.nn_utils.sharded import is_sharded

_LISTED = 5
_QUANTISED = (  # packages of such layers
    "torch.ao.nn.quantized",
    "torch.ao.nn.intrinsic.quantized",
    "torch.ao.nn.sparse.quantized",
)


def model_of(value: Any, what: str = "model") -> nn.Module:
    """``value``, if it is a model whose weights can be read.

    Args:
        value: what was given.
        what: the argument's name, for the message.

    Raises:
        DkmError: it is no ``torch.nn.Module``, one of ``torch.jit``, or one with weights that
            another tool, or ``torch.ao``, quantized.
    """
    if not isinstance(value, nn.Module):
        raise ArgumentError(f"{what} is {_said(value)}")
    if isinstance(value, torch.jit.ScriptModule):
        raise DkmError(
            f"{what} is a {type(value).__name__} of torch.jit, which cannot be exported; give the "
            "torch.nn.Module that it was made from"
        )
    for name, tensor in value.named_parameters():
        if is_traceable_wrapper_subclass(tensor) and not is_sharded(tensor):
            kind = type(tensor).__name__
            raise DkmError(f"{what}: {name} is a {kind}, quantized already; give the plain model")
    layers = list(_quantized(value))
    if layers:
        more = f" and {len(layers) - _LISTED} more" if len(layers) > _LISTED else ""
        named = ", ".join(name or "the model itself" for name in layers[:_LISTED]) + more
        raise DkmError(f"{what}: quantized already by torch.ao: {named}; give the plain model")
    return value


def _quantized(module: nn.Module, name: str = "") -> Iterator[str]:
    """Names of the quantized layers in a module; not of the parts that these are made of."""
    if _is_quantized(module):
        yield name
        return
    for part, child in module.named_children():
        yield from _quantized(child, f"{name}.{part}" if name else part)


def _is_quantized(module: nn.Module) -> bool:
    """Whether a layer keeps weights in packed integers, which are no parameters."""
    kind = type(module)
    if kind.__name__ in ("FloatFunctional", "FXFloatFunctional"):  # in floating point still
        return False
    return kind.__module__.startswith(_QUANTISED) or any(
        tensor.is_quantized
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))
    )


def _said(value: Any) -> str:
    """What was given in place of a model, and what to do."""
    wanted = "give a torch.nn.Module"
    if value is None:
        return f"None; {wanted}"
    if isinstance(value, type):
        return f"the class {value.__name__}; give an instance, such as {value.__name__}()"
    if isinstance(value, (str, PathLike)):
        takers = "dkm.load, dkm.palettize_file and dkm.read_palettes take one"
        return f"{os.fspath(value)!r}, a name or a path ({takers}); {wanted}"
    if isinstance(value, Mapping):
        if any(isinstance(entry, torch.Tensor) for entry in value.values()):
            return "a state_dict; load it into its model (load_state_dict) and give that"
        return f"{short(value)}; {wanted}"
    if isinstance(value, torch.export.ExportedProgram):
        return "a program of torch.export; give program.module(), or the model it was made from"
    if isinstance(value, Optimizer):
        return f"an optimizer ({type(value).__name__}); give the model"
    return f"{short(value)}; {wanted}"
