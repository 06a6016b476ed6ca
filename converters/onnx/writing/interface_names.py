"""The names of a graph's inputs and outputs, which everything inside makes way for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from dkm_deploy.model.output_names import unique

if TYPE_CHECKING:
    from collections.abc import Sequence


def name_interface(graph: ir.Graph, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Name the inputs and the outputs of ``graph``, in place.

    Inputs keep the names that callers give values by. An output of the same name gets another
    one, for ONNX has one name for one value. Outputs that are an input, a weight or another
    output become copies of it.
    """
    _separate(graph)
    outside = [*graph.inputs, *graph.outputs]
    wanted = [*inputs, *unique(outputs, inputs)]
    inside = [value for value in _values(graph) if value not in set(outside)]
    taken = {*wanted, *(value.name for value in inside if value.name)}
    for value in inside:
        if value.name in wanted:
            (value.name,) = unique([value.name], taken)
            taken.add(value.name)
    for value, name in zip(outside, wanted, strict=True):
        value.name = name


def _separate(graph: ir.Graph) -> None:
    """Make each output the result of a node that no other output is."""
    seen: set[ir.Value] = set()
    for place, value in enumerate(graph.outputs):
        if value in seen or value.is_graph_input() or value.is_initializer():
            copy = ir.Value(type=value.type, shape=value.shape)
            graph.append(ir.Node("", "Identity", [value], outputs=[copy]))
            graph.outputs[place] = copy
        seen.add(value)


def _values(graph: ir.Graph) -> list[ir.Value]:
    """All values of a graph and of those inside it, but its inputs."""
    made = [value for node in graph.all_nodes() for value in node.outputs]
    inner = [value for sub in graph.subgraphs() for value in sub.inputs]
    return [*graph.initializers.values(), *made, *inner]
