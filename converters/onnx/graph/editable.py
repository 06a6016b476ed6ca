"""A graph of a user's file for onnx_ir to edit, and the way back, on which nothing is lost.

onnx_ir does not hold all that a file may: sparse tensors, maps, fields and types that are newer
than it. So it is given what an edit asks for: which node reads which value, attributes that are
numbers, ranks, and which values are constants. Nodes bring their messages along, for the way back.
Tensors stay where they are, and are not copied.
"""

from __future__ import annotations

from collections import ChainMap
from typing import TYPE_CHECKING

import onnx_ir as ir
from onnx import AttributeProto, GraphProto, NodeProto

from converters.onnx.graph.consumers import name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_Values = ChainMap[str, ir.Value]  # by name; those of outer graphs last
_MESSAGE = "message"
_NUMBERS = {
    AttributeProto.INT,
    AttributeProto.FLOAT,
    AttributeProto.INTS,
    AttributeProto.FLOATS,
}


def editable(graph: GraphProto, missing: Iterable[str]) -> tuple[ir.Graph, dict[str, ir.Value]]:
    """A main graph for edits, and the values that its nodes use and nothing gives.

    Args:
        graph: stays as it is until :func:`write_back`.
        missing: names of these values.
    """
    used = {name: ir.Value(name=name) for name in missing}
    values: _Values = ChainMap(dict(used))
    ranks = _ranks(graph)
    inputs = [_value(value.name, ranks) for value in graph.input]
    values.update({name_of(value): value for value in inputs})
    initializers = {}
    for tensor in (each for each in graph.initializer if each.name):
        value = values.setdefault(tensor.name, _value(tensor.name, ranks))
        value.const_value = ir.serde.TensorProtoTensor(tensor)
        initializers[tensor.name] = value
    nodes = _nodes(graph.node, values, ranks)
    outputs = [values.setdefault(value.name, ir.Value(name=value.name)) for value in graph.output]
    return ir.Graph(inputs, outputs, nodes=nodes, initializers=[*initializers.values()]), used


def write_back(edited: ir.Graph, graph: GraphProto) -> None:
    """Put the nodes of ``edited``, and its new initializers, into the graph that it came from.

    The new tensors are taken out of ``edited`` one by one, so that no two copies of all are held.
    """
    nodes = [_message(node) for node in edited]
    del graph.node[:]
    graph.node.extend(nodes)
    there = {tensor.name for tensor in graph.initializer}
    for name, value in edited.initializers.items():
        if name not in there and value.const_value is not None:
            ir.serde.serialize_tensor_into(graph.initializer.add(), value.const_value)
            value.const_value = None


def _ranks(graph: GraphProto) -> dict[str, int]:
    """Rank of every value whose shape the graph tells."""
    ranks: dict[str, int] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.HasField("tensor_type") and value.type.tensor_type.HasField("shape"):
            ranks[value.name] = len(value.type.tensor_type.shape.dim)
    return ranks | {tensor.name: len(tensor.dims) for tensor in graph.initializer}


def _value(name: str, ranks: dict[str, int]) -> ir.Value:
    shape = ir.Shape([None] * ranks[name]) if name in ranks else None
    return ir.Value(name=name, shape=shape)


def _nodes(messages: Sequence[NodeProto], values: _Values, ranks: dict[str, int]) -> list[ir.Node]:
    """The nodes of a graph; each value is known to all of them, in whatever order they are."""
    given = [[_value(name, ranks) for name in message.output] for message in messages]
    values.update({name_of(value): value for outputs in given for value in outputs if value.name})
    return [_node(*each, values) for each in zip(messages, given, strict=True)]


def _node(message: NodeProto, outputs: list[ir.Value], values: _Values) -> ir.Node:
    inputs = [
        values.setdefault(name, ir.Value(name=name)) if name else None for name in message.input
    ]
    attributes = [each for a in message.attribute for each in _attributes(a, values)]
    node = ir.Node(
        message.domain, message.op_type, inputs, attributes, outputs=outputs, name=message.name
    )
    node.meta[_MESSAGE] = message
    return node


def _attributes(message: AttributeProto, values: _Values) -> Iterator[ir.Attr]:
    """An attribute that is numbers or graphs; no edit asks for others."""
    if message.type in _NUMBERS:
        yield ir.serde.deserialize_attribute(message)
    graphs = [*message.graphs, *([message.g] if message.HasField("g") else [])]
    if graphs:
        yield ir.AttrGraphs(message.name, [_body(graph, values) for graph in graphs])


def _body(graph: GraphProto, values: _Values) -> ir.Graph:
    """A graph inside a node, for what it reads of the outer ones."""
    own = [value.name for value in (*graph.input, *graph.initializer)]
    inner = values.new_child({name: ir.Value(name=name) for name in own})
    nodes = _nodes(graph.node, inner, {})
    # Its outputs may be values of outer graphs, which onnx_ir does not count as uses; nodes do.
    outputs = [inner.setdefault(value.name, ir.Value(name=value.name)) for value in graph.output]
    return ir.Graph([], [], nodes=[*nodes, ir.Node("", "Identity", outputs)])


def _message(node: ir.Node) -> NodeProto:
    """The message of a node: the one that it came from where that says the same."""
    source: NodeProto | None = node.meta.get(_MESSAGE)
    if source is None:
        return ir.serde.serialize_node(node)
    inputs = [value.name if value is not None and value.name else "" for value in node.inputs]
    outputs = [name_of(value) for value in node.outputs]
    same = list(source.input) == inputs and list(source.output) == outputs
    if same and source.name == node.name:
        return source
    message = NodeProto()
    message.CopyFrom(source)
    message.name, message.input[:], message.output[:] = node.name or "", inputs, outputs
    return message
