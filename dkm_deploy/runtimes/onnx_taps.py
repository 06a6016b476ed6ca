"""Where an ONNX graph computes which layer: the nodes that read a weight, in the graph's order."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from dkm_deploy.runtimes import Tap

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

_TURNED = ".T"


def find_taps(graph: GraphProto, weights: Collection[str]) -> tuple[Tap, ...]:
    """A tap for every node that computes something from data and a value named as a weight.

    The value is an initializer, or what the decoding of a palette ends in, perhaps transposed. It
    is followed through nodes that take nothing else. Nodes inside subgraphs are not looked at.
    """
    constant = {tensor.name for tensor in graph.initializer}
    constant |= {tensor.values.name for tensor in graph.sparse_initializer}
    from_weight = {name: weight for weight in weights for name in (weight, weight + _TURNED)}
    found = []
    for node in graph.node:
        data = [i for i in node.input if i and i not in constant and i not in from_weight]
        weight = next((from_weight[i] for i in node.input if i in from_weight), None)
        if weight is not None and data:
            found.append(Tap(weight, data[0], _with_bias(graph, node, weight)))
        elif weight is not None:
            from_weight.update((o, weight) for o in node.output if o)
        elif not data and not any(a.HasField("g") or a.graphs for a in node.attribute):
            constant.update(node.output)
    return tuple(found)


def _with_bias(graph: GraphProto, node: NodeProto, weight: str) -> str:
    """The node's output or, where a node of its own adds the layer's bias, the output of that."""
    bias = weight.removesuffix("weight") + "bias"
    for other in graph.node:
        if other.op_type == "Add" and set(other.input) == {node.output[0], bias}:
            return str(other.output[0])
    return str(node.output[0])
