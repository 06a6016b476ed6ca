"""A palette as ONNX nodes and initializers: standard operators, none of them on bits.

Several indices make a symbol, and the graph decodes a symbol at a time: ``Gather(T, symbol)``,
where row ``x`` of the table T holds the LUT entries of all indices in symbol ``x``. The graph makes
T from the LUT and a table of indices, which it computes itself from a Range and all weights of a
width share. So the file holds ``bits`` bits an index, the LUT, and no table.

Symbols are initializers of packed bytes (:mod:`converters.onnx.decoding.bit_planes`):
``<weight>.indices``, or ``<weight>.indices.0``, ``.1``, .. where there are several planes. Indices
lie in the order of their
groups: first all of the first LUT. ``<weight>.lut`` holds the LUTs as they are in the palette, of
rank K + 2. The dense weight is the value ``<weight>``. The per-channel scale of a palette that has
one is ``<weight>.scale``, and a last Mul applies it.

Indices that take a byte each, and those in ONNX's own types of 4 or 2 bits for a runtime that is
known to have them, decode without a table: ``GatherElements(LUTs, indices)``, one LUT a row. So do
4-bit indices of a matrix: a byte holds one of the upper half and one of the lower, the bytes are
laid one below the other, and the rows of each half look them up in a table for its bits.
"""

from __future__ import annotations

from collections.abc import Collection
from math import prod

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from converters.onnx.decoding import bit_planes
from converters.onnx.decoding.builder import ELEMENTS_SINCE, Builder
from converters.onnx.decoding.encoding import Encoding, finish
from converters.onnx.decoding.index_order import Order, by_group
from dkm_deploy.packing import pack
from dkm_deploy.palette import Palette

# Indices in a symbol by bits, the best first; a table of more entries does not pay.
_TOGETHER = {1: (8,), 2: (4,), 3: (4, 2), 4: (2,), 5: (2,), 6: (2,), 7: (2,), 8: ()}
_STACKED = 4  # bits of indices that lie two a byte, one of either half of a matrix
_SMALL_TABLE = 2048
_TABLE_SHARE = 8  # weights for each entry of a larger table


def encode(
    weight: str,
    palette: Palette,
    *,
    zero: ir.Value | None = None,
    narrow: Collection[int] = (),
    lut: ir.Value | None = None,
    into: str = "",
    shape: tuple[int, ...] = (),
    part: str = "",
    elements: bool = True,
    opset: int = ELEMENTS_SINCE,
) -> Encoding:
    """The decoding of ``palette`` into a value called ``weight``.

    Args:
        weight: name of the parameter.
        palette: of any layout.
        zero: an int64 value of the graph that is 0 in every run but no constant, which
            keeps runtimes from decoding once for all; left out, they may.
        narrow: widths of indices that are stored as ONNX's own type of that width: 2, 4. Those of
            vectors and of files that stay packed are not: Reshape has no kernel for these types.
        lut: a value with the LUT's shape to decode with in place of the LUT.
        into: name of the result, if not the weight's.
        shape: of the result, if not the weight's.
        part: what to add to the name of the indices, where the palette is a part of the weight's.
        elements: whether GatherElements may be used, which OpenVINO does not run at load, while
            its recurrent layers want constants, and which ONNX Runtime folds with an Expand that
            it lacks for bfloat16.
        opset: of the model, 7 or newer.
    """
    order, graph = Order.of(palette), Builder(weight, into if part else "", opset)
    stored_lut = graph.tensor(f"{weight}.lut", palette.lut)
    lut, name = stored_lut if lut is None else lut, f"{weight}.indices{part}"
    together = together_in(palette, order.members)
    grid: tuple[int, ...] = ()
    scalar = palette.cluster_dim == 1 and elements and opset >= ELEMENTS_SINCE
    if scalar and palette.bits in narrow and zero is None:
        grid = _grid(palette, order)
        indices = _narrow(graph, name, palette, grid)
        values = _look_up_scalars(graph, lut, palette, indices, grid)
    elif scalar and _is_stacked(palette, order):
        grid = palette.shape
        values = _stack_rows(graph, name, palette, lut, zero)
    elif scalar and together == 1:
        grid = _grid(palette, order)
        indices, _ = _symbols(graph, name, palette, together, grid[0], zero)
        if palette.bits < 8:
            indices = graph.node("Reshape", indices, graph.int64(grid))
        values = _look_up_scalars(graph, lut, palette, indices, grid)
    else:
        symbols = _symbols(graph, name, palette, together, prod(palette.groups), zero)
        values = _by_symbols(graph, palette, together, lut, *symbols)
    _into_place(graph, values, grid, order, palette, into or weight, shape or order.shape)
    return finish(graph)


def _symbols(
    graph: Builder,
    name: str,
    palette: Palette,
    together: int,
    rows: int,
    zero: ir.Value | None,
) -> tuple[ir.Value, int]:
    """The symbols of all indices, in rows, and their rank: see ``bit_planes``."""
    joined = join(by_group(palette).reshape(-1, together), palette.bits).reshape(rows, -1)
    stored = bit_planes.store(graph, name, joined, palette.bits * together)
    data = [_keep_from_folding(graph, plane.value, plane.shape, zero) for plane in stored.planes]
    return bit_planes.symbols(graph, stored, data), stored.rank


def _keep_from_folding(
    graph: Builder, packed: ir.Value, shape: tuple[int, ...], zero: ir.Value | None
) -> ir.Value:
    """Packed bytes of ``shape``, no constant if there is a ``zero``: see :func:`encode`.

    In one Reshape to a sum: runtimes see through two of them, and through a Concat of sizes.
    """
    if zero is None:
        return packed
    name = "_".join([zero.name or "", *map(str, shape)])
    return graph.node("Reshape", packed, graph.node("Add", zero, graph.int64(shape), into=name))


def _by_symbols(
    graph: Builder, palette: Palette, together: int, lut: ir.Value, symbols: ir.Value, rank: int
) -> ir.Value:
    """The values of symbols, whose first dimension is that of the groups."""
    count = prod(palette.groups)
    if count == 1:
        # Along the dimension of the entries: the LUT needs no Reshape.
        axis = palette.lut.ndim - 2
        if together > 1:
            entries = bit_planes.numbers(graph, palette.bits, (together,))
            lut = graph.node("Gather", lut, entries, axis=axis)
        return graph.node("Gather", lut, symbols, axis=axis)
    table, rows = table_of(graph, lut, palette, together)
    symbols = graph.node("Add", symbols, _firsts(graph, count, rows, rank))
    return graph.node("Gather", table, symbols)


def _grid(palette: Palette, order: Order) -> tuple[int, int]:
    """Rows and columns of indices that are looked up one by one, a LUT a row.

    They are the weight's own where each of its rows has one LUT, which then needs no Reshape. Else
    a row is a group; and so it is where rows are so short that to repeat the LUT would cost more.
    """
    groups = prod(palette.groups)
    own = len(palette.shape) == 2 and not order.permutation and palette.groups[0] == groups
    if own and palette.shape[1] >= 1 << palette.bits:
        return palette.shape[0], palette.shape[1]
    return groups, order.members


def _narrow(graph: Builder, name: str, palette: Palette, grid: tuple[int, int]) -> ir.Value:
    """Indices as one initializer of their own width, cast to int32."""
    kind = {2: ir.DataType.UINT2, 4: ir.DataType.UINT4}[palette.bits]
    packed = ir.PackedTensor(pack(by_group(palette), palette.bits), kind, shape=ir.Shape(grid))
    return graph.node("Cast", graph.tensor(name, packed), to=ir.DataType.INT32)


def _is_stacked(palette: Palette, order: Order) -> bool:
    """Whether the weight is a matrix of 4 bits with one LUT, and rows long enough for a table."""
    own = _grid(palette, order) == palette.shape and prod(palette.groups) == 1
    rows, columns = palette.shape if own else (0, 0)
    return own and palette.bits == _STACKED and rows % 2 == 0 and columns >= 256


def _stack_rows(
    graph: Builder, name: str, palette: Palette, lut: ir.Value, zero: ir.Value | None
) -> ir.Value:
    """The matrix of indices that lie two a byte: ``(rows, columns)``, with no copy of it made."""
    rows, columns = palette.shape
    upper, lower = palette.indices.reshape(2, rows // 2, columns)
    packed = upper | lower << np.uint8(_STACKED)
    stored = _keep_from_folding(graph, graph.tensor(name, packed), packed.shape, zero)
    both = graph.node("Concat", stored, stored, axis=0)
    codes = graph.node("Cast", both, to=ir.DataType.INT32)
    entries = graph.node("Reshape", lut, graph.int64([-1]))
    table = graph.node("Gather", entries, bit_planes.halves(graph))
    half = graph.node("Div", graph.up_to(rows), graph.int32(rows // 2), into=f"dkm:half_of_{rows}")
    tables = graph.node("Gather", table, half)
    return graph.node("GatherElements", tables, codes, axis=1)


def _look_up_scalars(
    graph: Builder, lut: ir.Value, palette: Palette, indices: ir.Value, grid: tuple[int, int]
) -> ir.Value:
    """Scalars by indices of shape ``grid``."""
    rows, groups, entries = grid[0], prod(palette.groups), 1 << palette.bits
    if rows == groups:
        tables = graph.node("Reshape", lut, graph.int64([groups, entries]))
    else:
        tables = graph.node("Reshape", lut, graph.int64([groups, 1, entries]))
        repeated = graph.int64([groups, rows // groups, entries])
        tables = graph.node("Expand", tables, repeated)
        tables = graph.node("Reshape", tables, graph.int64([rows, entries]))
    # Several times as fast as Gather, which copies slices.
    return graph.node("GatherElements", tables, indices, axis=1)


def together_in(palette: Palette, divisor: int) -> int:
    """Indices in a symbol: a divisor of ``divisor`` whose table is worth its entries."""
    entries = prod(palette.groups) * palette.cluster_dim
    worth = max(_SMALL_TABLE, palette.size // _TABLE_SHARE)
    for together in _TOGETHER[palette.bits]:
        if divisor % together == 0 and (entries * together << palette.bits * together) <= worth:
            return together
    return 1


def join(indices: NDArray[np.uint8], bits: int) -> NDArray[np.uint16]:
    """Symbols of indices ``(symbols, together)``, the first in the lowest bits."""
    symbols = np.zeros(len(indices), np.uint16)
    for place, column in enumerate(indices.T):
        symbols |= column.astype(np.uint16) << np.uint16(bits * place)
    return symbols


def table_of(
    graph: Builder, lut: ir.Value, palette: Palette, together: int
) -> tuple[ir.Value, int]:
    """The LUT entries of every symbol, one LUT's after the other's; and the rows of one."""
    count, entries, width = prod(palette.groups), 1 << palette.bits, palette.cluster_dim
    if count == 1:
        flat = graph.node("Reshape", lut, graph.int64([-1] if width == 1 else [-1, width]))
        if together == 1:
            return flat, entries
        numbers = bit_planes.numbers(graph, palette.bits, (together,))
        return graph.node("Gather", flat, numbers), 1 << palette.bits * together
    if together == 1:
        return graph.node("Reshape", lut, graph.int64([-1, width])), entries
    tables = graph.node("Reshape", lut, graph.int64([count, entries, width]))
    numbers = bit_planes.numbers(graph, palette.bits, (together,))
    rows = graph.node("Gather", tables, numbers, axis=1)
    return (
        graph.node("Reshape", rows, graph.int64([-1, together * width])),
        1 << palette.bits * together,
    )


def _firsts(graph: Builder, count: int, rows: int, rank: int) -> ir.Value:
    """int32 ``(count, 1 ..)``: the first row of each LUT's table; shared."""
    firsts = graph.multiples(count, rows, into=f"dkm:firsts_{count}_{rows}")
    shape = graph.int64([count, *[1] * (rank - 1)])
    return graph.node("Reshape", firsts, shape, into=f"{firsts.name}_{rank}")


def _into_place(
    graph: Builder,
    values: ir.Value,
    grid: tuple[int, ...],
    order: Order,
    palette: Palette,
    into: str,
    shape: tuple[int, ...],
) -> None:
    """From the order of the groups to the weight's own, and to the sizes of its channels."""
    if order.permutation:
        values = graph.node("Reshape", values, graph.int64(order.split))
        values = graph.node("Transpose", values, perm=order.permutation)
    if order.permutation or grid != shape:
        values = graph.node("Reshape", values, graph.int64(shape))
    if palette.scale is not None:
        values = graph.node("Mul", values, graph.tensor(f"{graph.weight}.scale", palette.scale))
    graph.rename_last(into)
