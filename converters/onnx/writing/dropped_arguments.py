"""Arguments that PyTorch's ONNX exporter leaves out without a word, refused by layer."""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from dkm_deploy.conversion.failed_operation import layer_of
from dkm_deploy.errors import DkmError

_aten = torch.ops.aten
_HEEDED: dict[Any, tuple[str, tuple[Any, ...]]] = {  # the values that come out right
    _aten.avg_pool2d.default: ("divisor_override", (None,)),
    _aten.avg_pool3d.default: ("divisor_override", (None,)),
    _aten.scatter_reduce.two: ("reduce", ("sum", "prod", "amax", "amin")),
    _aten.elu.default: ("input_scale", (1,)),
}


def refuse_left_out(program: ExportedProgram) -> None:
    """Raise DkmError for a call with an argument that its ONNX form would not have."""
    for node in program.graph.nodes:
        if node.op == "call_function" and node.target in _HEEDED:
            name, heeded = _HEEDED[node.target]
            value = _argument(node, name)
            if value not in heeded:
                raise DkmError(
                    f"{layer_of(node) or 'the model'}: PyTorch's ONNX exporter would leave "
                    f"out {name}={value} of {node.target}; compute the same without it"
                )


def _argument(node: Node, name: str) -> Any:
    """An argument of a call by name, or its default."""
    for place, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if argument.name == name:
            given = node.args[place] if place < len(node.args) else argument.default_value
            return node.kwargs.get(name, given)
    raise KeyError(name)
