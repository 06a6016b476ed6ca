"""Find the places where an ONNX graph decodes a palette, from its structure alone.

A decode starts at a LUT, a float initializer of rank 3 or more called ``<weight>.lut``, and is
computed from it, packed bytes and constants. It ends in one of four ways: in the dense value that
is called ``<weight>``, or ``<weight>.T`` if it is the transposed matrix; in parts of either, some
output channels each, ``<weight>.part.0``, ``.part.1`` ..; in ``<weight>.codes``, 8-bit codes for a
kernel; or, where only rows of the weight are decoded, in the value made from bytes that a Gather
takes by row numbers of the caller's. A dense value and rows may be products with a per-channel
scale, ``<weight>.scale``. No metadata is trusted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import count, takewhile

from onnx import ModelProto, NodeProto, TensorProto, helper

from converters.onnx.decoding.chunked import PART
from converters.onnx.decoding.runtime_zero import SIZE
from converters.onnx.decoding.transposed import TURNED

FLOATS = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE)
_PACKED = (TensorProto.UINT8, TensorProto.UINT4, TensorProto.UINT2)
_LUT, _LUT_RANK = ".lut", 3
_SCALE = ".scale"
CODES, LUT_CODES = ".codes", ".lut_codes"


@dataclass(frozen=True)
class Decode:
    """The part of a graph that decodes one weight.

    Attributes:
        weight: its name.
        lut: the initializer with the LUTs.
        scale: the initializer with the scale of the channels; None where there is none.
        planes: the initializers with packed bytes.
        end: the value that the part gives.
        ids: the value with the numbers of the rows that are decoded; None where all are.
        lut_codes: the value with the LUT as 8-bit codes, if these are decoded; else None.
        turned: whether ``end`` is the transposed weight.
        nodes: all nodes that ``end`` depends on, without those that ``ids`` depends on, in an
            order that runs.
        tensors: all initializers that it depends on.
        inputs: values that it depends on for no more than a size: anchors, which keep runtimes
            from decoding once for all.
    """

    weight: str
    lut: TensorProto
    scale: TensorProto | None
    planes: tuple[TensorProto, ...]
    end: str
    ids: str | None
    lut_codes: str | None
    turned: bool
    nodes: tuple[NodeProto, ...]
    tensors: Mapping[str, TensorProto]
    inputs: tuple[str, ...]


def find_decodes(model: ModelProto) -> Iterator[Decode]:
    """All decodes of the main graph, in the order of its initializers; rows at each use."""
    graph = _Graph(model)
    for tensor in model.graph.initializer:
        if _is_lut(tensor) and tensor.name not in graph.inputs:
            yield from _decodes(graph, tensor)


def _is_lut(tensor: TensorProto) -> bool:
    named = tensor.name.endswith(_LUT)
    return named and tensor.data_type in FLOATS and len(tensor.dims) >= _LUT_RANK


class _Graph:
    """Look-ups in a graph."""

    def __init__(self, model: ModelProto) -> None:
        self.nodes = list(model.graph.node)
        self.tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        # An initializer that is an input too is a default that a caller may replace.
        self.inputs = {value.name for value in model.graph.input}

    @cached_property
    def producers(self) -> dict[str, int]:
        return {name: i for i, node in enumerate(self.nodes) for name in node.output if name}

    @cached_property
    def consumers(self) -> dict[str, list[NodeProto]]:
        found: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in set(node.input):
                found.setdefault(name, []).append(node)
        return found

    def is_rows(self, node: NodeProto) -> bool:
        """Whether a node gathers packed bytes or scales by row numbers that are no constant."""
        if node.op_type != "Gather" or len(node.input) != 2 or node.input[0] not in self.tensors:
            return False
        data = self.tensors[node.input[0]]
        by_row = data.data_type == TensorProto.UINT8 or data.name.endswith(_SCALE)
        return by_row and len(data.dims) >= 2 and node.input[1] not in self.tensors

    def part(self, *ends: str) -> _Part:
        """What values depend on, up to the row numbers."""
        places: set[int] = set()
        found = _Part([], {}, set(), set())
        waiting, seen = list(ends), set(ends)
        while waiting:
            name = waiting.pop()
            if name in self.inputs:
                found.inputs.add(name)
            elif name in self.tensors:
                found.tensors[name] = self.tensors[name]
            elif name in self.producers:
                node = self.nodes[self.producers[name]]
                if node.op_type == SIZE:
                    found.inputs.add(name)
                    continue
                places.add(self.producers[name])
                if self.is_rows(node):
                    found.ids.add(node.input[1])
                sources = node.input[:1] if self.is_rows(node) else node.input
                fresh = [source for source in sources if source and source not in seen]
                seen.update(fresh)
                waiting += fresh
            else:  # a value of an outer graph, or a damaged file
                found.inputs.add(name)
        found.nodes.extend(self.nodes[place] for place in sorted(places))
        return found


@dataclass(frozen=True)
class _Part:
    nodes: list[NodeProto]
    tensors: dict[str, TensorProto]
    inputs: set[str]
    ids: set[str]

    def planes(self) -> list[TensorProto]:
        return [t for t in self.tensors.values() if t.data_type in _PACKED]


def _decodes(graph: _Graph, lut: TensorProto) -> Iterator[Decode]:
    weight = lut.name.removesuffix(_LUT)
    whole = [weight, weight + TURNED, weight + CODES]
    pieces = {end: _pieces(graph, end) for end in whole[:2]}
    ends = [end for end in whole if end in graph.producers or pieces.get(end)]
    for end in ends or _row_ends(graph, lut.name):
        parts, turned = pieces.get(end), end == weight + TURNED
        part = graph.part(*(parts or [end]))
        planes = tuple(part.planes())
        if lut.name not in part.tensors or not planes or len(part.ids) > 1:
            continue
        joined = [helper.make_node("Concat", parts, [end], axis=int(turned))] if parts else []
        yield Decode(
            weight,
            lut,
            part.tensors.get(weight + _SCALE),
            planes,
            end,
            next(iter(part.ids), None),
            weight + LUT_CODES if end == weight + CODES else None,
            turned,
            (*part.nodes, *joined),
            part.tensors,
            tuple(sorted(part.inputs)),
        )


def _pieces(graph: _Graph, end: str) -> list[str]:
    """The parts of a weight or of its transpose, in their order, if it is decoded so."""
    names = (f"{end}{PART}{number}" for number in count())
    return list(takewhile(graph.producers.__contains__, names))


def _row_ends(graph: _Graph, lut: str) -> list[str]:
    """Values that hold decoded rows: behind the lookup, the Reshape or the scale that ends it."""
    ends, waiting, seen = [], [lut], {lut, ""}
    while waiting:
        for node in graph.consumers.get(waiting.pop(), []):
            value = next(iter(node.output), "")
            if value in seen:  # a damaged graph may go in circles
                continue
            seen.add(value)
            if node.op_type == "Reshape" and graph.part(value).ids:
                ends += _scale_products(graph, value, lut.removesuffix(_LUT) + _SCALE) or [value]
            elif node.op_type in ("Reshape", "Gather", "Cast"):
                waiting.append(value)
    return ends


def _scale_products(graph: _Graph, rows: str, scale: str) -> list[str]:
    """The products of decoded rows and their channels' scales."""
    gathers = [node for node in graph.consumers.get(scale, []) if graph.is_rows(node)]
    scales = {name for node in gathers for name in node.output}
    users = [node for node in graph.consumers.get(rows, []) if scales.intersection(node.input)]
    return [name for node in users if node.op_type == "Mul" for name in node.output]
