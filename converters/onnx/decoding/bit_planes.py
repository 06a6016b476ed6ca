"""Symbols of several indices, stored as packed planes of bits, and how a graph reads them.

A symbol's bits are stored in planes of 8, 4, 2 and 1 bits, after the binary form of its width (a
symbol of 14 bits has 8 + 4 + 2), the lowest bits first. The numbers in the bytes of a plane are
looked up in a table, and the planes are added.

Where bytes end with every row of symbols, planes are stored in such shapes that the numbers of all
have one shape with no Reshape: the dimensions of size 2 in which a byte of a narrow plane holds
several symbols are dimensions of the bytes of a wide one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from converters.onnx.decoding.builder import Builder
from dkm_deploy.packing import pack


@dataclass(frozen=True)
class Plane:
    """An initializer with ``width`` bits of every symbol, of weight ``2**shift``.

    Attributes:
        value: the initializer, uint8.
        width: 8, 4, 2 or 1.
        shift: place of its lowest bit in a symbol.
        shape: of the initializer.
    """

    value: ir.Value
    width: int
    shift: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class BitPlanes:
    """Symbols in planes.

    Attributes:
        planes: the lowest bits first.
        shape: ``(rows, columns)`` of the symbols.
        whole: whether bytes end with every row; if not, planes are flat.
    """

    planes: tuple[Plane, ...]
    shape: tuple[int, int]
    whole: bool

    @property
    def rank(self) -> int:
        """Of the symbols as :func:`symbols` gives them."""
        narrowest = self.planes[-1].width
        return 2 + len(_twos(8 // narrowest)) if self.whole else 2


def widths(bits: int) -> list[tuple[int, int]]:
    """Width and lowest bit of each plane of a symbol: 7 bits give (4, 0), (2, 4), (1, 6)."""
    found = [width for width in (8, 4, 2, 1) if bits & width]
    return [(width, sum(found[:i])) for i, width in enumerate(found)]


def fill_bytes(columns: int, bits: int) -> bool:
    """Whether a row of so many symbols ends with a byte in every plane."""
    return columns * min(width for width, _ in widths(bits)) % 8 == 0


def store(graph: Builder, name: str, symbols: NDArray[np.uint16], bits: int) -> BitPlanes:
    """Make the initializers of symbols ``(rows, columns)`` that have ``bits`` bits.

    There is one called ``name``, or several, ``<name>.0``, ``.1`` ..
    """
    rows, columns = symbols.shape
    whole, parts = fill_bytes(columns, bits), widths(bits)
    together = 8 // min(width for width, _ in parts)  # symbols in a byte of the narrowest plane
    planes = []
    for number, (width, shift) in enumerate(parts):
        plane = (symbols >> np.uint16(shift) & np.uint16((1 << width) - 1)).astype(np.uint8)
        shape: tuple[int, ...] = (-1,)
        if whole:
            shape = (rows, columns // together, *_twos(together * width // 8))
        data = pack(plane, width).reshape(shape)
        own = f"{name}.{number}" if len(parts) > 1 else name
        planes.append(Plane(graph.tensor(own, data), width, shift, data.shape))
    return BitPlanes(tuple(planes), (rows, columns), whole)


def symbols(graph: Builder, stored: BitPlanes, data: list[ir.Value]) -> ir.Value:
    """int32 symbols from ``data``, the bytes of the planes, or some of their rows.

    Their shape is that of the rows and more dimensions, which hold the columns in order; it is
    ``(rows, columns)`` where the symbols are one plane of bytes, or not whole.
    """
    codes = (
        _codes(graph, stored, plane, source)
        for plane, source in zip(stored.planes, data, strict=True)
    )
    total = reduce(lambda before, more: graph.node("Add", before, more), codes)
    return total if stored.whole else graph.node("Reshape", total, graph.int64(stored.shape))


def numbers(graph: Builder, bits: int, dims: tuple[int, ...]) -> ir.Value:
    """int32 ``(2**(bits * count), *dims)``: the ``count`` numbers in every symbol; shared."""
    count = int(np.prod(dims))
    rows, name = 1 << bits * count, f"dkm:n{bits}x" + "x".join(map(str, dims))
    values = graph.up_to(rows)
    shape = [rows, *[1] * len(dims)]
    column = graph.node("Reshape", values, graph.int64(shape), into=f"{values.name}_{len(dims)}")
    powers = np.array([1 << bits * place for place in range(count)], np.int32).reshape(dims)
    divisors = graph.tensor(f"{name}:p", powers)
    shifted = graph.node("Div", column, divisors, into=f"{name}:q")
    return graph.remainder(shifted, 1 << bits, into=name)


def halves(graph: Builder) -> ir.Value:
    """int32 ``(2, 256)``: the lower 4 bits of every byte, then the upper ones; shared."""
    values = graph.up_to(256)
    divisors = graph.tensor("dkm:halves:p", np.array([[1], [16]], np.int32))
    shifted = graph.node("Div", values, divisors, into="dkm:halves:q")
    return graph.remainder(shifted, 16, into="dkm:halves")


def _codes(graph: Builder, stored: BitPlanes, plane: Plane, data: ir.Value) -> ir.Value:
    """The part of every symbol that is in one plane."""
    # int32: half the work of int64, and uint8 arithmetic is missing or wrong in some runtimes.
    codes = _unpack(graph, graph.node("Cast", data, to=ir.DataType.INT32), plane)
    return codes if stored.whole else _cut(graph, codes, stored, plane)


def _unpack(graph: Builder, data: ir.Value, plane: Plane) -> ir.Value:
    """The numbers in bytes ``data`` times ``2**shift``, in new last dimensions of size 2."""
    if plane.width == 8:
        return data
    table = numbers(graph, plane.width, _twos(8 // plane.width))
    if plane.shift:
        factor = graph.int32(1 << plane.shift)
        table = graph.node("Mul", table, factor, into=f"{table.name}:{plane.shift}")
    return graph.node("Gather", table, data)


def _cut(graph: Builder, codes: ir.Value, stored: BitPlanes, plane: Plane) -> ir.Value:
    """Flat numbers without those that fill the last byte."""
    count = stored.shape[0] * stored.shape[1]
    if plane.width == 8:
        return codes
    flat = graph.node("Reshape", codes, graph.int64([-1]))
    if count * plane.width % 8 == 0:
        return flat
    return graph.first(flat, count)


def _twos(size: int) -> tuple[int, ...]:
    return (2,) * (size.bit_length() - 1)
