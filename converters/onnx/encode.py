"""A palette as ONNX nodes and initializers: standard operators, none of them on bits.

Several indices make a symbol, and the graph decodes a symbol at a time: ``Gather(T, symbol)``,
where row ``x`` of the table T holds the LUT entries of all indices in symbol ``x``. The graph makes
T from the LUT and a table of indices, which it computes itself from a Range and all weights of a
width share. So the file holds ``bits`` bits an index, the LUT, and no table.

Symbols are stored as planes of 8, 4, 2 and 1 bits, after the binary form of their width (a symbol
of two 7-bit indices has 14 = 8 + 4 + 2), the lowest bits first. Each plane is an initializer of
packed bytes: ``<weight>.indices``, or ``<weight>.indices.0``, ``.1``, .. where there are several.
Indices lie in the order of their groups: first all of the first LUT. ``<weight>.lut`` holds the
LUTs as they are in the palette, of rank K + 2. The dense weight is the value ``<weight>``. The
per-channel scale of a palette that has one is ``<weight>.scale``, and a last Mul applies it.

For a runtime that is known to have them, indices of 4 or 2 bits can be one initializer of ONNX's
own UINT4 or UINT2, which decodes without a table.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from converters.onnx.builder import Builder
from converters.onnx.order import Order, by_group
from dkm_deploy.packing import pack
from dkm_deploy.palette import Palette

# Indices in a symbol by bits, the best first; a table of more entries does not pay.
_TOGETHER = {1: (8,), 2: (4,), 3: (4, 2), 4: (2,), 5: (2,), 6: (2,), 7: (2,), 8: ()}
_SMALL_TABLE = 2048
_TABLE_SHARE = 8  # weights for each entry of a larger table


@dataclass(frozen=True)
class Encoding:
    """Nodes in an order that runs, and the initializers that they read.

    Encodings of several weights bring the same shared parts, under the same names.
    """

    nodes: tuple[NodeProto, ...]
    tensors: tuple[TensorProto, ...]


def encode(
    weight: str,
    palette: Palette,
    *,
    flat: str = "",
    narrow: Collection[int] = (),
    lut: str = "",
    into: str = "",
    shape: tuple[int, ...] = (),
) -> Encoding:
    """The decoding of ``palette`` into a value called ``weight``.

    Args:
        weight: name of the parameter.
        palette: of any layout.
        flat: name of a value of the graph that is ``[-1]`` in every run but no constant, which
            keeps runtimes from decoding once for all; left out, they may.
        narrow: widths of indices that are stored as ONNX's own type of that width: 2, 4. Those of
            vectors and of files that stay packed are not: Reshape has no kernel for these types.
        lut: name of a value with the LUT's shape to decode with in place of the LUT.
        into: name of the result, if not the weight's.
        shape: of the result, if not the weight's.
    """
    order, graph = Order.of(palette), Builder(weight)
    stored_lut = graph.tensor(f"{weight}.lut", palette.lut)
    if palette.bits in narrow and palette.cluster_dim == 1 and not flat:
        count = prod(palette.groups)
        symbols = _narrow(graph, palette, (count, order.members))
        values = _looked_up(graph, lut or stored_lut, symbols, count)
    else:
        values = _by_symbols(graph, palette, order, lut or stored_lut, flat)
    _into_place(graph, values, order, palette, into or weight, shape or order.shape)
    return _finished(graph)


def _by_symbols(graph: Builder, palette: Palette, order: Order, lut: str, flat: str) -> str:
    """The values of packed indices, in the order of the groups."""
    count, together = prod(palette.groups), _together(palette, order.members)
    stored = by_group(palette).reshape(-1, together)
    planes = [
        _codes(graph, _flattened(graph, plane.name, flat), len(stored), plane)
        for plane in _stored(graph, stored, palette.bits)
    ]
    alone = together == 1 and palette.cluster_dim == 1
    symbols = _added(graph, planes, [count, -1] if count > 1 or alone else [-1])
    if alone:
        return _looked_up(graph, lut, symbols, count)
    if count == 1:
        # Along the dimension of the entries: the LUT needs no Reshape.
        axis = palette.lut.ndim - 2
        if together > 1:
            numbers = _numbers(graph, palette.bits, together)
            lut = graph.node("Gather", lut, numbers, axis=axis)
        return graph.node("Gather", lut, symbols, axis=axis)
    table, rows = _table(graph, lut, palette, together)
    symbols = graph.node("Add", symbols, _firsts(graph, count, rows))
    return graph.node("Gather", table, symbols)


def _narrow(graph: Builder, palette: Palette, shape: tuple[int, int]) -> str:
    """Indices ``(groups, members)`` as one initializer of their own width, cast to int32."""
    kind = {2: TensorProto.UINT2, 4: TensorProto.UINT4}[palette.bits]
    name = f"{graph.weight}.indices"
    packed = pack(by_group(palette), palette.bits)
    tensor = helper.make_tensor(name, kind, shape, packed.tobytes(), raw=True)
    graph.tensors[name] = tensor
    return graph.node("Cast", name, to=TensorProto.INT32)


def _looked_up(graph: Builder, lut: str, indices: str, count: int) -> str:
    """Scalars ``(count, members)`` by indices of that shape, one LUT a row."""
    # Several times as fast as Gather, which copies slices.
    tables = graph.node("Reshape", lut, graph.int64([count, -1]))
    return graph.node("GatherElements", tables, indices, axis=1)


def holds_rows(palette: Palette) -> bool:
    """Whether rows of a palette's weight can be decoded on their own: see :func:`encode_rows`."""
    if len(palette.shape) != 2 or prod(palette.groups) > 1:
        return False
    if palette.cluster_dim > 1 and palette.axis == 0:
        return False
    row = palette.indices.shape[1]
    symbols = row // _together(palette, row)
    widths = _planes(palette.bits * _together(palette, row))
    return all(symbols * width % 8 == 0 for width, _ in widths)


def encode_rows(weight: str, palette: Palette, ids: str, rank: int, into: str) -> Encoding:
    """``Gather(weight, ids)`` without the whole weight: packed rows are gathered.

    Args:
        weight: name of the parameter.
        palette: one that :func:`holds_rows`.
        ids: name of the value with row numbers, of shape ``(..)``.
        rank: of ``ids``.
        into: name of the result, of shape ``(.., columns)``.
    """
    rows, row = palette.indices.shape
    together = _together(palette, row)
    graph = Builder(weight, unique=into)
    leading = [0] * rank  # a dimension as it is
    planes = []
    for plane in _stored(graph, palette.indices.reshape(-1, together), palette.bits, rows):
        data = graph.node("Gather", plane.name, ids)
        codes = graph.node("Cast", data, to=TensorProto.INT32)
        planes.append(_unpacked(graph, codes, plane))
    symbols = _added(graph, planes, [*leading, row // together])
    lut = graph.tensor(f"{weight}.lut", palette.lut)
    table, _ = _table(graph, lut, palette, together)
    values = graph.node("Gather", table, symbols)
    shape = graph.int64([*leading, palette.shape[1]])
    if palette.scale is None:
        graph.node("Reshape", values, shape, into=into)
        return _finished(graph)
    dense = graph.node("Reshape", values, shape)
    scales = graph.node("Gather", graph.tensor(f"{weight}.scale", palette.scale), ids)
    graph.node("Mul", dense, scales, into=into)
    return _finished(graph)


def merged(encodings: Iterable[Encoding]) -> Encoding:
    """All encodings in one; what they share is in it once."""
    nodes: dict[str, NodeProto] = {}
    tensors: dict[str, TensorProto] = {}
    for encoding in encodings:
        nodes.update({node.output[0]: node for node in encoding.nodes})
        tensors.update({tensor.name: tensor for tensor in encoding.tensors})
    return Encoding(tuple(nodes.values()), tuple(tensors.values()))


@dataclass(frozen=True)
class _Plane:
    """An initializer with ``width`` bits of every symbol, of weight ``2**shift``."""

    name: str
    width: int
    shift: int


def _planes(bits: int) -> list[tuple[int, int]]:
    """Width and lowest bit of each plane of a symbol: 7 bits give (4, 0), (2, 4), (1, 6)."""
    widths = [width for width in (8, 4, 2, 1) if bits & width]
    return [(width, sum(widths[:i])) for i, width in enumerate(widths)]


def _together(palette: Palette, divisor: int) -> int:
    """Indices in a symbol: a divisor of ``divisor`` whose table is worth its entries."""
    entries = prod(palette.groups) * palette.cluster_dim
    worth = max(_SMALL_TABLE, palette.size // _TABLE_SHARE)
    for together in _TOGETHER[palette.bits]:
        if divisor % together == 0 and (entries * together << palette.bits * together) <= worth:
            return together
    return 1


def _stored(
    graph: Builder, indices: NDArray[np.uint8], bits: int, rows: int | None = None
) -> list[_Plane]:
    """Initializers with the symbols of ``indices``, ``(symbols, together)``.

    Planes have shape ``(bytes,)``, or ``(rows, bytes)``.
    """
    symbols = np.zeros(len(indices), np.uint16)
    for place, column in enumerate(indices.T):
        symbols |= column.astype(np.uint16) << np.uint16(bits * place)
    widths = _planes(bits * indices.shape[1])
    found = []
    for number, (width, shift) in enumerate(widths):
        name = f"{graph.weight}.indices" + (f".{number}" if len(widths) > 1 else "")
        plane = (symbols >> np.uint16(shift) & np.uint16((1 << width) - 1)).astype(np.uint8)
        data = pack(plane, width)
        graph.tensor(name, data if rows is None else data.reshape(rows, -1))
        found.append(_Plane(name, width, shift))
    return found


def _flattened(graph: Builder, plane: str, flat: str) -> str:
    return graph.node("Reshape", plane, flat) if flat else plane


def _codes(graph: Builder, data: str, count: int, plane: _Plane) -> str:
    """The ``count`` numbers of a packed plane, each times ``2**shift``, as int32."""
    # int32: half the work of int64, and uint8 arithmetic is missing or wrong in some runtimes.
    codes = _unpacked(graph, graph.node("Cast", data, to=TensorProto.INT32), plane)
    if count * plane.width % 8 == 0:
        return codes
    whole = graph.node("Reshape", codes, graph.int64([-1]))
    return graph.node("Slice", whole, graph.int64([0]), graph.int64([count]))


def _unpacked(graph: Builder, data: str, plane: _Plane) -> str:
    """The numbers in bytes ``data``, in a new last dimension unless a byte is one number."""
    if plane.width == 8:
        return data
    table = _numbers(graph, plane.width, 8 // plane.width)
    if plane.shift:
        factor = graph.int32(1 << plane.shift)
        table = graph.node("Mul", table, factor, into=f"{table}_at_{plane.shift}")
    return graph.node("Gather", table, data)


def _added(graph: Builder, planes: list[str], shape: list[int]) -> str:
    """The sum of planes, each brought to ``shape``; one alone may be of any, if that is flat."""
    if len(planes) == 1 and shape == [-1]:
        return planes[0]
    total = ""
    for plane in planes:
        part = graph.node("Reshape", plane, graph.int64(shape))
        total = graph.node("Add", total, part) if total else part
    return total


def _numbers(graph: Builder, bits: int, together: int) -> str:
    """int32 ``(2**(bits * together), together)``: the numbers in every symbol; shared."""
    rows, name = 1 << bits * together, f"dkm:numbers_{bits}x{together}"
    bounds = graph.int32(0), graph.int32(rows), graph.int32(1)
    values = graph.node("Range", *bounds, into=f"dkm:range_{rows}")
    column = graph.node("Reshape", values, graph.int64([rows, 1]), into=f"dkm:column_{rows}")
    powers = graph.int32([1 << bits * place for place in range(together)])
    shifted = graph.node("Div", column, powers, into=f"{name}_shifted")
    return graph.node("Mod", shifted, graph.int32(1 << bits), into=name)


def _table(graph: Builder, lut: str, palette: Palette, together: int) -> tuple[str, int]:
    """The LUT entries of every symbol, one LUT's after the other's; and the rows of one."""
    count, entries, width = prod(palette.groups), 1 << palette.bits, palette.cluster_dim
    if count == 1:
        flat = graph.node("Reshape", lut, graph.int64([-1] if width == 1 else [-1, width]))
        if together == 1:
            return flat, entries
        numbers = _numbers(graph, palette.bits, together)
        return graph.node("Gather", flat, numbers), 1 << palette.bits * together
    if together == 1:
        return graph.node("Reshape", lut, graph.int64([-1, width])), entries
    tables = graph.node("Reshape", lut, graph.int64([count, entries, width]))
    rows = graph.node("Gather", tables, _numbers(graph, palette.bits, together), axis=1)
    return (
        graph.node("Reshape", rows, graph.int64([-1, together * width])),
        1 << palette.bits * together,
    )


def _firsts(graph: Builder, count: int, rows: int) -> str:
    """int32 ``(count, 1)``: the first row of each LUT's table; shared."""
    bounds = graph.int32(0), graph.int32(count * rows), graph.int32(rows)
    firsts = graph.node("Range", *bounds, into=f"dkm:firsts_{count}_{rows}")
    return graph.node("Reshape", firsts, graph.int64([count, 1]), into=f"{firsts}_column")


def _into_place(
    graph: Builder,
    values: str,
    order: Order,
    palette: Palette,
    into: str,
    shape: tuple[int, ...],
) -> None:
    """From the order of the groups to the weight's own, and to the sizes of its channels."""
    if order.permutation:
        values = graph.node("Reshape", values, graph.int64(order.split))
        values = graph.node("Transpose", values, perm=order.permutation)
    if palette.scale is None:
        graph.node("Reshape", values, graph.int64(shape), into=into)
        return
    dense = graph.node("Reshape", values, graph.int64(shape))
    graph.node("Mul", dense, graph.tensor(f"{graph.weight}.scale", palette.scale), into=into)


def _finished(graph: Builder) -> Encoding:
    return Encoding(tuple(graph.nodes), tuple(graph.tensors.values()))
