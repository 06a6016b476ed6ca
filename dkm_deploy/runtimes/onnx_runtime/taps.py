"""Where an ONNX graph computes which layer: the nodes that read a weight, in the graph's order."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from dkm_deploy.runtimes import Tap

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

_TURNED = ".T"


def find_taps(graph: GraphProto, weights: Collection[str]) -> tuple[Tap, ...]:
    """A tap for every node that computes something from data and a value named as a weight.

    The value is an initializer, or what the decoding of a palette ends in, perhaps transposed. It
    is followed through nodes that take nothing else. Of an embedding whose rows are decoded one by
    one, the tap takes the row numbers and makes the rows. Nodes inside subgraphs are not looked at.
    """
    constant = {tensor.name for tensor in graph.initializer}
    constant |= {tensor.values.name for tensor in graph.sparse_initializer}
    from_weight = {name: weight for weight in weights for name in (weight, weight + _TURNED)}
    from_lut = {f"{weight}.lut": weight for weight in weights}
    makers = {name: node for node in graph.node for name in node.output if name}
    found: list[Tap] = []
    for node in graph.node:
        data = [i for i in node.input if i and i not in constant and i not in from_weight]
        weight = next((from_weight[i] for i in node.input if i in from_weight), None)
        lut = next((from_lut[i] for i in node.input if i in from_lut), None)
        if weight is not None and data:
            found.append(Tap(weight, data[0], _with_bias(graph, node, weight)))
        elif weight is not None:
            from_weight.update((o, weight) for o in node.output if o)
        elif lut is not None and data:
            found += _rows(graph, makers, node, lut)
        elif not data and not any(a.HasField("g") or a.graphs for a in node.attribute):
            constant.update(node.output)
            if lut is not None:
                from_lut.update((o, lut) for o in node.output if o)
    return tuple(found)


def _with_bias(graph: GraphProto, node: NodeProto, weight: str) -> str:
    """The node's output or, where a node of its own adds the layer's bias, the output of that."""
    bias = weight.removesuffix("weight") + "bias"
    for other in graph.node:
        if other.op_type == "Add" and set(other.input) == {node.output[0], bias}:
            return str(other.output[0])
    return str(node.output[0])


def _rows(
    graph: GraphProto, makers: Mapping[str, NodeProto], lookup: NodeProto, weight: str
) -> list[Tap]:
    """The tap of an embedding of which only rows are decoded; none if ``lookup`` is of no such."""
    numbers = _row_numbers(graph, makers, lookup)
    shaped = [n for n in graph.node if n.op_type == "Reshape" and n.input[0] == lookup.output[0]]
    if numbers is None or not shaped:
        return []
    rows = shaped[0].output[0]
    for node in graph.node:
        if node.op_type == "Mul" and rows in node.input:
            others = [makers[name] for name in node.input if name != rows and name in makers]
            if any(f"{weight}.scale" in other.input for other in others):
                rows = node.output[0]
    return [Tap(weight, numbers, rows)]


def _row_numbers(
    graph: GraphProto, makers: Mapping[str, NodeProto], lookup: NodeProto
) -> str | None:
    """What the packed rows are gathered by, of which the values at ``lookup`` are made."""
    from onnx import TensorProto

    packed = {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.UINT8}
    waiting, seen = list(lookup.input), set(lookup.input)
    while waiting:
        node = makers.get(waiting.pop())
        if node is None:
            continue
        if node.op_type == "Gather" and node.input[0] in packed:
            return str(node.input[1])
        fresh = [name for name in node.input if name not in seen]
        seen.update(fresh)
        waiting += fresh
    return None
