"""Find the places where an ONNX graph decodes a palette, from its structure alone.

A decode is a Gather from LUTs (a float initializer of rank 3 or more, reshaped) by rows that are
computed from constants only, packed bytes among them. What follows is part of it: nothing for
scalar entries and one LUT, else an optional Transpose and a Reshape to the weight's shape. No name
and no metadata is trusted, but that the dense value is called after its weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING

from onnx import ModelProto, NodeProto, TensorProto

if TYPE_CHECKING:
    from collections.abc import Iterator

_FLOATS = (TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE)
_LUT_RANK = 3


@dataclass(frozen=True)
class Decode:
    """The part of a graph that decodes one weight.

    Attributes:
        weight: name of the dense value.
        lut: name of the initializer with the LUTs.
        planes: names of the initializers with packed bytes.
        rows: value with the row of every index in the LUTs laid end to end.
        before: value that the last Reshape takes; the dense value itself where there is none.
        entry: dimension of ``before`` that holds the values of a LUT entry; -1 is the last.
        nodes: all nodes that the dense value depends on, in an order that runs.
        tensors: all initializers that it depends on.
    """

    weight: str
    lut: str
    planes: tuple[str, ...]
    rows: str
    before: str
    entry: int
    nodes: tuple[NodeProto, ...]
    tensors: tuple[TensorProto, ...]


def find_decodes(model: ModelProto) -> Iterator[Decode]:
    """All decodes of the main graph, in the order of its nodes."""
    graph = _Graph(model)
    for node in model.graph.node:
        decode = _decode(graph, node) if node.op_type == "Gather" else None
        if decode:
            yield decode


class _Graph:
    """Look-ups in a graph."""

    def __init__(self, model: ModelProto) -> None:
        self.nodes = list(model.graph.node)
        self.tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        # An initializer that is an input too is a default that a caller may replace.
        self.inputs = {value.name for value in model.graph.input}

    @cached_property
    def producers(self) -> dict[str, int]:
        return {name: i for i, node in enumerate(self.nodes) for name in node.output}

    @cached_property
    def consumers(self) -> dict[str, list[NodeProto]]:
        found: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                found.setdefault(name, []).append(node)
        return found

    def producer(self, value: str) -> NodeProto | None:
        place = self.producers.get(value)
        return None if place is None else self.nodes[place]

    def next(self, value: str, op: str) -> NodeProto | None:
        """The only node that takes ``value``, if it is an ``op`` and takes it first."""
        nodes = self.consumers.get(value, [])
        fits = len(nodes) == 1 and nodes[0].op_type == op and nodes[0].input[0] == value
        return nodes[0] if fits else None

    def constant_part(self, value: str) -> tuple[list[NodeProto], list[TensorProto]] | None:
        """Nodes and initializers that ``value`` depends on; None if an input is among them."""
        places: set[int] = set()
        tensors: dict[str, TensorProto] = {}
        waiting = [value]
        while waiting:
            name = waiting.pop()
            if name in self.inputs:
                return None
            if name in self.tensors:
                tensors[name] = self.tensors[name]
            elif name in self.producers and self.producers[name] not in places:
                places.add(self.producers[name])
                waiting += [source for source in self.nodes[self.producers[name]].input if source]
            elif name not in self.producers:
                return None
        return [self.nodes[place] for place in sorted(places)], list(tensors.values())


def _decode(graph: _Graph, gather: NodeProto) -> Decode | None:
    lut = _lut(graph, gather.input[0]) if len(gather.input) > 1 else None
    rows = graph.constant_part(gather.input[1]) if lut else None
    planes = [t.name for t in rows[1] if t.data_type == TensorProto.UINT8] if rows else []
    if lut is None or not planes:
        return None
    before, weight, entry = _ends(graph, gather, lut)
    part = graph.constant_part(weight)
    if part is None:
        return None
    nodes, tensors = tuple(part[0]), tuple(part[1])
    return Decode(weight, lut.name, tuple(planes), gather.input[1], before, entry, nodes, tensors)


def _lut(graph: _Graph, entries: str) -> TensorProto | None:
    reshape = graph.producer(entries)
    if reshape is None or reshape.op_type != "Reshape" or not reshape.input:
        return None
    cast = graph.producer(reshape.input[0])  # from a narrower type that the LUTs are stored in
    stored = cast.input[0] if cast and cast.op_type == "Cast" and cast.input else reshape.input[0]
    lut = graph.tensors.get(stored)
    fits = lut is not None and lut.data_type in _FLOATS and len(lut.dims) >= _LUT_RANK
    return lut if fits else None


def _ends(graph: _Graph, gather: NodeProto, lut: TensorProto) -> tuple[str, str, int]:
    """The value before the last Reshape, the dense value, and where an entry lies in the first."""
    value = gather.output[0]
    width, groups = lut.dims[-1], prod(lut.dims[:-2])
    if width == 1 and groups == 1:
        return value, value, -1
    transpose = graph.next(value, "Transpose") if width > 1 else None
    before = transpose.output[0] if transpose else value
    reshape = graph.next(before, "Reshape")
    return before, reshape.output[0] if reshape else before, _moved(transpose)


def _moved(transpose: NodeProto | None) -> int:
    """Where a Transpose, if any, brings the last dimension."""
    if transpose is None:
        return -1
    permutation = next((list(a.ints) for a in transpose.attribute if a.name == "perm"), [0])
    return permutation.index(max(permutation))
