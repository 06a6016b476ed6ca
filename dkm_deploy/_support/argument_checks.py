"""What users give to public functions, checked where it comes in: one line says what is wrong."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from typing import Any, TypeVar

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from dkm_deploy.errors import DkmError

_T = TypeVar("_T")

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
            another tool, or ``torch.ao``, quantised.
    """
    if not isinstance(value, nn.Module):
        raise DkmError(f"{what} is {_said(value)}")
    if isinstance(value, torch.jit.ScriptModule):
        raise DkmError(
            f"{what} is a {type(value).__name__} of torch.jit, which cannot be exported; give the "
            "torch.nn.Module that it was made from"
        )
    for name, tensor in value.named_parameters():
        if is_traceable_wrapper_subclass(tensor) and not isinstance(tensor, DTensor):
            kind = type(tensor).__name__
            raise DkmError(f"{what}: {name} is a {kind}, quantised already; give the plain model")
    layers = list(_quantised(value))
    if layers:
        more = f" and {len(layers) - _LISTED} more" if len(layers) > _LISTED else ""
        named = ", ".join(name or "the model itself" for name in layers[:_LISTED]) + more
        raise DkmError(f"{what}: quantised already by torch.ao: {named}; give the plain model")
    return value


def _quantised(module: nn.Module, name: str = "") -> Iterator[str]:
    """Names of the quantised layers in a module; not of the parts that these are made of."""
    if _is_quantised(module):
        yield name
        return
    for part, child in module.named_children():
        yield from _quantised(child, f"{name}.{part}" if name else part)


def _is_quantised(module: nn.Module) -> bool:
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
        return f"{str(value)!r}, a name or a path; {wanted}"
    if isinstance(value, Mapping):
        if any(isinstance(entry, torch.Tensor) for entry in value.values()):
            return "a state_dict; load it into its model (load_state_dict) and give that"
        return f"{short(value)}; {wanted}"
    if isinstance(value, torch.export.ExportedProgram):
        return "a program of torch.export; give program.module(), or the model it was made from"
    if isinstance(value, Optimizer):
        return f"an optimizer ({type(value).__name__}); give the model"
    return f"{short(value)}; {wanted}"


def names_of(value: Any, what: str) -> tuple[str, ...]:
    """Names; a lone str is one. Raises DkmError for what is no name."""
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, Iterable) or isinstance(names, (bytes, Mapping)):
        raise DkmError(f"{what} is {short(value)}; give a name or several")
    names = tuple(names)
    for name in names:
        if not isinstance(name, str):
            raise DkmError(f"{what}: {short(name)} is no name")
    return names


def integer(name: str, value: Any, low: int, high: int | None = None) -> int:
    """A whole number from ``low`` to ``high``, also numpy's. Raises DkmError for anything else."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise DkmError(f"{name} is {short(value)}; it must be an integer")
    if number < low or (high is not None and number > high):
        span = f"{low} to {high}" if high is not None else f"at least {low}"
        raise DkmError(f"{name} is {number}; it must be {span}")
    return number


def real(
    name: str,
    value: Any,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    most: float = math.inf,
) -> float:
    """A number within bounds, also numpy's; ``above`` is not within. Raises DkmError for others."""
    plain = value.item() if hasattr(value, "item") and not hasattr(value, "__len__") else value
    if isinstance(plain, bool) or not isinstance(plain, (int, float)) or math.isnan(plain):
        raise DkmError(f"{name} is {short(value)}; it must be a number")
    if not above < plain or not least <= plain <= most:
        low = f"above {above:g}" if above > -math.inf else f"at least {least:g}"
        high = "" if most == math.inf else f", at most {most:g}"
        raise DkmError(f"{name} is {plain:g}; it must be {low}{high}")
    return plain


def truth(name: str, value: Any) -> bool:
    """True or false. Raises DkmError for anything else."""
    if not isinstance(value, bool):
        raise DkmError(f"{name} is {short(value)}; it must be true or false")
    return value


def function(name: str, value: _T) -> _T:
    """A function, or None. Raises DkmError for anything else."""
    if value is not None and not callable(value):
        raise DkmError(f"{name} is {short(value)}; it must be a function")
    return value


def record(name: str, value: Any, kind: type[_T]) -> _T:
    """A record of ``kind``. Raises DkmError for anything else."""
    if not isinstance(value, kind):
        where = "dkm" if kind.__module__.startswith("dkm_deploy.") else kind.__module__
        raise DkmError(f"{name} is {short(value)}; give a {where}.{kind.__name__}")
    return value


def implementing(name: str, value: _T, attribute: str, known: Iterable[str]) -> _T:
    """An object that has ``attribute``. Raises DkmError, with the ``known`` names, for others."""
    if isinstance(value, type):
        raise DkmError(f"{name} is the class {value.__name__}; give an instance, or its name")
    if not hasattr(value, attribute):
        raise DkmError(f"{name} is {short(value)}; give a record, or one of {', '.join(known)}")
    return value


def short(value: object) -> str:
    """A value as Python writes it, in few characters and one line; else its type."""
    line = " ".join(repr(value).split())
    return line if len(line) <= 60 else f"of type {type(value).__name__}"
