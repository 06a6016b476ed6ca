"""Who uses a value of an ONNX graph."""

from __future__ import annotations

from onnx import GraphProto, NodeProto


def users_of(graph: GraphProto, value: str) -> list[NodeProto]:
    """The nodes of the main graph that read a value."""
    return [node for node in graph.node if value in node.input]


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
