"""A palette as ONNX nodes and initializers: standard operators, none of them on bits.

The indices of a weight are stored as planes of 8, 4, 2 and 1 bits, after the binary form of
``bits`` (7 = 4 + 2 + 1), the lowest bits first. Each plane is an initializer of packed bytes:
``<weight>.indices``, or ``<weight>.indices.0``, ``.1``, .. where there are several. The graph turns
a byte into its 8/k indices with a table of 256 rows, which it computes itself from a Range and all
weights share: the file holds ``bits`` bits an index and no table. ``<weight>.lut`` holds the LUTs
as they are in the palette, of rank K + 2. The dense weight is the value ``<weight>``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from dkm_deploy.packing import pack

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from dkm_deploy.palette import Palette


@dataclass(frozen=True)
class Encoding:
    """Nodes in an order that runs, and the initializers that they read.

    Encodings of several weights bring the same shared parts, under the same names.
    """

    nodes: tuple[NodeProto, ...]
    tensors: tuple[TensorProto, ...]


def encode(weight: str, palette: Palette) -> Encoding:
    """The decoding of ``palette`` into a value called ``weight``."""
    graph = _Builder(weight)
    lut = graph.tensor(f"{weight}.lut", palette.lut)
    width = palette.cluster_dim
    entries = graph.node("Reshape", lut, graph.int64([-1] if width == 1 else [-1, width]))
    grouped = prod(palette.groups) > 1
    rows = _rows(graph, palette)
    if width == 1 and not grouped:
        graph.node("Gather", entries, rows, into=weight, axis=0)
        return graph.encoding()
    vectors = graph.node("Gather", entries, rows, axis=0)
    if width > 1 and palette.axis + 1 < len(palette.shape):
        vectors = graph.node("Transpose", vectors, perm=_entry_to_axis(palette))
    graph.node("Reshape", vectors, graph.int64(palette.shape), into=weight)
    return graph.encoding()


def merged(encodings: Iterable[Encoding]) -> Encoding:
    """All encodings in one; what they share is in it once."""
    nodes: dict[str, NodeProto] = {}
    tensors: dict[str, TensorProto] = {}
    for encoding in encodings:
        nodes.update({node.output[0]: node for node in encoding.nodes})
        tensors.update({tensor.name: tensor for tensor in encoding.tensors})
    return Encoding(tuple(nodes.values()), tuple(tensors.values()))


def planes(bits: int) -> list[tuple[int, int]]:
    """Width and lowest bit of each plane of an index: 7 bits give (4, 0), (2, 4), (1, 6)."""
    widths = [width for width in (8, 4, 2, 1) if bits & width]
    return [(width, sum(widths[:i])) for i, width in enumerate(widths)]


@dataclass
class _Builder:
    """Collects the nodes and initializers of one weight."""

    weight: str
    nodes: list[NodeProto] = field(default_factory=list)
    tensors: dict[str, TensorProto] = field(default_factory=dict)

    def tensor(self, name: str, values: NDArray[Any]) -> str:
        self.tensors[name] = numpy_helper.from_array(values, name)
        return name

    def int64(self, values: Sequence[int]) -> str:
        """A shape, shared by value; int64 is what Reshape and Slice ask for."""
        return self.tensor("dkm:shape_" + "_".join(map(str, values)), np.array(values, np.int64))

    def int32(self, values: int | Sequence[int]) -> str:
        """A constant of index arithmetic, shared by value."""
        name = str(values) if isinstance(values, int) else "_".join(map(str, ["", *values]))
        return self.tensor(f"dkm:int{name}", np.array(values, np.int32))

    def node(self, op: str, *inputs: str, into: str = "", **attributes: Any) -> str:
        """Add a node and give its output; a name in ``into`` that is there already is shared."""
        name = into or f"{self.weight}:{len(self.nodes)}"
        if all(name != node.output[0] for node in self.nodes):
            self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def encoding(self) -> Encoding:
        return Encoding(tuple(self.nodes), tuple(self.tensors.values()))


def _rows(graph: _Builder, palette: Palette) -> str:
    """int32 rows of the LUTs laid end to end, each grouped dimension n split into (g, n / g)."""
    shape, offset_shape = _split(palette)
    widths = planes(palette.bits)
    rows = ""
    for number, (width, shift) in enumerate(widths):
        plane = palette.indices >> np.uint8(shift) & np.uint8((1 << width) - 1)
        name = f"{graph.weight}.indices" + (f".{number}" if len(widths) > 1 else "")
        codes = _codes(graph, graph.tensor(name, pack(plane, width)), plane.size, width, shift)
        codes = graph.node("Reshape", codes, graph.int64(shape))
        rows = graph.node("Add", rows, codes) if rows else codes
    count, entries = prod(palette.groups), 1 << palette.bits
    if count == 1:
        return rows
    return graph.node("Add", rows, _offsets(graph, count, entries, offset_shape))


def _codes(graph: _Builder, plane: str, count: int, width: int, shift: int) -> str:
    """The ``count`` indices of a packed plane, each times ``2**shift``, as int32."""
    # int32: half the work of int64, and uint8 arithmetic is missing or wrong in some runtimes.
    data = graph.node("Cast", plane, to=TensorProto.INT32)
    if width == 8:
        return data
    codes = graph.node("Gather", _table(graph, width, shift), data, axis=0)
    if count * width % 8 == 0:
        return codes
    flat = graph.node("Reshape", codes, graph.int64([-1]))
    return graph.node("Slice", flat, graph.int64([0]), graph.int64([count]))


def _table(graph: _Builder, width: int, shift: int) -> str:
    """int32 ``(256, 8 / width)``: the indices in every byte value, times ``2**shift``; shared."""
    bounds = graph.int32(0), graph.int32(256), graph.int32(1)
    values = graph.node("Range", *bounds, into="dkm:bytes")
    column = graph.node("Reshape", values, graph.int64([256, 1]), into="dkm:byte_column")
    powers = graph.int32([1 << low for low in range(0, 8, width)])
    shifted = graph.node("Div", column, powers, into=f"dkm:bytes_by_{width}")
    table = graph.node("Mod", shifted, graph.int32(1 << width), into=f"dkm:table_{width}")
    if not shift:
        return table
    return graph.node("Mul", table, graph.int32(1 << shift), into=f"dkm:table_{width}_at_{shift}")


def _offsets(graph: _Builder, count: int, entries: int, shape: Sequence[int]) -> str:
    """int32 first row of each LUT, shaped to be added to the rows; shared."""
    bounds = graph.int32(0), graph.int32(count * entries), graph.int32(entries)
    firsts = graph.node("Range", *bounds, into=f"dkm:offsets_{count}_{entries}")
    name = f"{firsts}_as_" + "_".join(map(str, shape))
    return graph.node("Reshape", firsts, graph.int64(shape), into=name)


def _split(palette: Palette) -> tuple[list[int], list[int]]:
    """Shape of the indices with grouped dimensions split, and that of the offsets beside it."""
    shape: list[int] = []
    offsets: list[int] = []
    for length, groups in zip(palette.indices.shape, palette.groups, strict=True):
        shape += [length] if groups == 1 else [groups, length // groups]
        offsets += [1] if groups == 1 else [groups, 1]
    return shape, offsets


def _entry_to_axis(palette: Palette) -> list[int]:
    """The permutation that brings the last dimension, a LUT entry's, to right behind the axis."""
    rank = len(palette.shape) + sum(groups > 1 for groups in palette.groups)
    before = palette.axis + 1 + sum(groups > 1 for groups in palette.groups[: palette.axis + 1])
    return [*range(before), rank, *range(before, rank)]
