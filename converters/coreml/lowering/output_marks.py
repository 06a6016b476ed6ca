"""An operation for each output: MIL has one name for one value, whatever it is besides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from coremltools.converters.mil import Builder
from coremltools.converters.mil.frontend.torch.ops import _get_inputs
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind, TensorArgument
from torch.fx import Node

torch.library.define("dkm::output", "(Tensor value) -> Tensor")
_OUTPUT = torch.ops.dkm.output.default


def mark_outputs(program: ExportedProgram) -> ExportedProgram:
    """Put ``dkm::output`` before each output that a user gets, in place."""
    output, specs = program.graph.output_node(), program.graph_signature.output_specs
    nodes = list(output.args[0])
    for place, (node, spec) in enumerate(zip(nodes, specs, strict=True)):
        if spec.kind is OutputKind.USER_OUTPUT and isinstance(node, Node):
            with program.graph.inserting_before(output):
                nodes[place] = program.graph.call_function(_OUTPUT, (node,))
            nodes[place].meta["val"] = node.meta["val"]
            spec.arg = TensorArgument(name=nodes[place].name)
    output.args = (tuple(nodes),)
    program.graph_module.recompile()
    return program


def register_lowering() -> Callable[[Any, Any], None]:
    """Lower ``dkm::output``: to nothing, or to a copy of what is an output or an input already."""
    seen: set[Any] = set()

    def lower(context: Any, node: Any) -> None:
        (value,) = _get_inputs(context, node, expected=1)
        if value.op is None or value in seen:
            value = Builder.identity(x=value, name=node.name)
        seen.add(value)
        context.add(value, torch_name=node.name)

    return lower
