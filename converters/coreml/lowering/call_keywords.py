"""Keyword arguments of ATen calls: coremltools drops those that a lowering does not ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from coremltools.converters.mil import Builder
from coremltools.converters.mil.mil import Var, types
from torch.export import ExportedProgram
from torch.fx import Node

from dkm_deploy.conversion.failed_operation import layer_of
from dkm_deploy.errors import DkmError

Lowering = Callable[[Any, Any], None]

_MOOT = frozenset(  # they change no number, or none that Core ML has a type for
    {
        *("device", "layout", "memory_format", "pin_memory", "non_blocking", "generator"),
        *("implicit", "out_int32", "output_size", "path", "sparse_grad"),
    }
)
_KINDS = {"fp32": types.is_float, "int32": types.is_int, "bool": types.is_bool}


@dataclass(frozen=True)
class TorchCall:
    """An ATen call whose keyword arguments decide what it computes.

    Attributes:
        operation: such as ``aten.gelu.default``.
        layer: the qualified name of the module that makes the call, or "the model".
        keywords: those that differ from their defaults.
    """

    operation: str
    layer: str
    keywords: Mapping[str, Any]


def calls(program: ExportedProgram) -> dict[str, TorchCall]:
    """The calls of a program that have such keyword arguments, by node name."""
    found = {}
    for node in program.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload) and node.users:
            defaults = {a.name: a.default_value for a in node.target._schema.arguments}
            keywords = {
                name: value
                for name, value in node.kwargs.items()
                if name not in _MOOT and not _equal(value, defaults[name])
            }
            if keywords:
                found[node.name] = TorchCall(
                    str(node.target), layer_of(node) or "the model", keywords
                )
    return found


def give_type(lower: Lowering) -> Lowering:
    """``lower``, with what it gives made a float, integer or truth value, as PyTorch has it."""

    def lower_call(context: Any, node: Any) -> None:
        lower(context, node)
        if isinstance((node.meta or {}).get("val"), torch.Tensor) and node.name in context:
            _cast(context, node)

    return lower_call


def check_keywords(lower: Lowering, met: Mapping[str, TorchCall]) -> Lowering:
    """``lower``, held to ask for each keyword argument of the calls ``met``, by node name.

    What comes out of a call with a ``dtype`` becomes of its kind. Raises DkmError where another
    keyword was not asked for.
    """

    def lower_call(context: Any, node: Any) -> None:
        call = met.get(node.name)
        if call is None:
            lower(context, node)
            return
        node.kwinputs = asked = _KeywordRecord(node.kwinputs)
        lower(context, node)
        for name, value in call.keywords.items():
            if name == "dtype":
                _cast(context, node)
            elif name not in asked.names:
                raise DkmError(
                    f"{call.layer}: coremltools does not know {name}={value} of "
                    f"{call.operation} and would leave it out; compute the same without it"
                )

    return lower_call


class _KeywordRecord(dict[str, Any]):
    """Keyword arguments of a call, which notes those that were looked up in ``names``."""

    def __init__(self, keywords: Mapping[str, Any]) -> None:
        super().__init__(keywords)
        self.names: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        """What a lowering of coremltools calls."""
        self.names.add(name)
        return super().get(name, default)


def _cast(context: Any, node: Any) -> None:
    """Make what a call gave a float, integer or truth value, as PyTorch has it."""
    given, wanted = context[node.name], node.meta["val"].dtype
    dtype = "bool" if wanted is torch.bool else "fp32" if wanted.is_floating_point else "int32"
    if isinstance(given, Var) and not _KINDS[dtype](given.dtype):
        context.add(Builder.cast(x=given, dtype=dtype), torch_name=node.name, override=True)


def _equal(value: Any, default: Any) -> bool:
    """Whether an argument is its default; a value of the graph never is."""
    return not isinstance(value, Node) and bool(value == default)
