"""Who uses a value of an ONNX graph that is edited."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

_RECURRENT = ("LSTM", "GRU", "RNN")
_MOVING = ("Concat", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")


def name_of(value: ir.Value) -> str:
    """The name of a value of a graph, where all have one."""
    return value.name or ""


def users_of(graph: ir.Graph, value: ir.Value) -> list[ir.Node]:
    """The nodes of the main graph that read a value, in no order to build on."""
    return [node for node in value.consumers() if node.graph is graph]


def attribute(node: ir.Node, name: str, default: Any) -> Any:
    """The value of an attribute of a node, or ``default`` if the node does not set it."""
    return node.attributes[name].value if name in node.attributes else default


def applies(node: ir.Node, kind: str, weight: ir.Value) -> bool:
    """Whether a node of this kind has ``weight`` as its second input, and as no other.

    It gives one value; a node of a damaged file may give more.
    """
    places = [place for user, place in weight.uses() if user is node]
    return node.op_type == kind and places == [1] and len(node.outputs) == 1


def used_elsewhere(graph: ir.Graph, value: ir.Value) -> bool:
    """Whether a value is an output, or used in the body of an If, Loop or Scan."""
    return value.is_graph_output() or any(node.graph is not graph for node in value.consumers())


def feeds_recurrent(graph: ir.Graph, value: ir.Value) -> bool:
    """Whether a value is a weight of a recurrent layer, moved about on the way or not."""
    waiting, seen = [value], {value}
    while waiting:
        for node in users_of(graph, waiting.pop()):
            if node.op_type in _RECURRENT:
                return True
            if node.op_type in _MOVING:
                fresh = [output for output in node.outputs if output not in seen]
                seen.update(fresh)
                waiting += fresh
    return False
