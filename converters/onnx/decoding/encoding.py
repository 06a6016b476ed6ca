"""A piece of a graph that decodes weights, and what pieces have in common."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import onnx_ir as ir

from converters.onnx.decoding.builder import Builder


@dataclass(frozen=True)
class Encoding:
    """Nodes in an order that runs, and the initializers that they read.

    Encodings of several weights bring the same shared parts, under the same names; see
    :class:`SharedParts`.
    """

    nodes: tuple[ir.Node, ...] = ()
    tensors: tuple[ir.Value, ...] = ()

    @property
    def result(self) -> ir.Value:
        """What the last node gives."""
        return self.nodes[-1].outputs[0]


@dataclass(frozen=True)
class Replacement:
    """An encoding that gives a value of a graph in its place.

    Attributes:
        value: its users read the encoding's result instead.
        before: the node that the encoding goes before; it goes itself if it gave the value.
        encoding: what gives the value.
    """

    value: ir.Value
    before: ir.Node
    encoding: Encoding


@dataclass
class SharedParts:
    """What encodings have given so far, by name, so that each name is given once."""

    _values: dict[str, ir.Value] = field(default_factory=dict)

    def new(self, encoding: Encoding) -> Encoding:
        """What of an encoding is new; the rest is taken off, and its users read what there is."""
        tensors = [value for value in encoding.tensors if self._is_new(value)]
        nodes = [node for node in encoding.nodes if self._is_new(node.outputs[0])]
        for node in set(encoding.nodes).difference(nodes):
            for place in range(len(node.inputs)):
                node.replace_input_with(place, None)
        return Encoding(tuple(nodes), tuple(tensors))

    def _is_new(self, value: ir.Value) -> bool:
        first = self._values.setdefault(value.name or "", value)
        if first is not value:
            value.replace_all_uses_with(first)
        return first is value


def merge(encodings: Iterable[Encoding]) -> Encoding:
    """All encodings in one; what they share is in it once."""
    shared = SharedParts()
    parts = [shared.new(encoding) for encoding in encodings]
    nodes = tuple(node for part in parts for node in part.nodes)
    return Encoding(nodes, tuple(value for part in parts for value in part.tensors))


def finish(graph: Builder) -> Encoding:
    """What a builder has collected."""
    return Encoding(tuple(graph.nodes.values()), tuple(graph.tensors.values()))
