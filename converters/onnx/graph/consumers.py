"""Who uses a value of an ONNX graph."""

from __future__ import annotations

from typing import Any

from onnx import GraphProto, NodeProto, helper

_RECURRENT = ("LSTM", "GRU", "RNN")
_MOVING = ("Concat", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")


def users_of(graph: GraphProto, value: str) -> list[NodeProto]:
    """The nodes of the main graph that read a value."""
    return [node for node in graph.node if value in node.input]


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """The attributes that a node sets, by name."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def applies(node: NodeProto, kind: str, weight: str) -> bool:
    """Whether a node of this kind has ``weight`` as its second input, and as no other."""
    others = (node.input[0], *node.input[2:])
    return node.op_type == kind and node.input[1] == weight and weight not in others


def used_elsewhere(graph: GraphProto, weight: str) -> bool:
    """Whether a weight is an output, or used in the body of an If, Loop or Scan."""
    if any(output.name == weight for output in graph.output):
        return True
    bodies = [
        body
        for node in graph.node
        for attribute in node.attribute
        for body in ([attribute.g] if attribute.HasField("g") else attribute.graphs)
    ]
    return any(
        any(weight in node.input for node in body.node) or used_elsewhere(body, weight)
        for body in bodies
    )


def feeds_recurrent(graph: GraphProto, value: str) -> bool:
    """Whether a value is a weight of a recurrent layer, moved about on the way or not."""
    waiting, seen = [value], {value}
    while waiting:
        for node in users_of(graph, waiting.pop()):
            if node.op_type in _RECURRENT:
                return True
            if node.op_type in _MOVING:
                fresh = [name for name in node.output if name not in seen]
                seen.update(fresh)
                waiting += fresh
    return False
