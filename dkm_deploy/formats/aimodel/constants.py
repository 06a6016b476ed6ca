"""Constants of a Core AI program.

The codes are those of the dialect "aicode", in which coreai-core 1.0.0b3 writes programs. It is not
documented; they were found by writing a constant of every type, as a test does again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dkm_deploy.formats.aimodel.byte_cursor import DamagedError
from dkm_deploy.formats.aimodel.mlir_sections import ResourceBlob, TableEntry, Tables, at
from dkm_deploy.packing import packed_size, unpack

_DIALECT = "aicode"
_INLINE, _RESOURCE = 6, 7  # of attributes
_TENSOR = 2  # of types
_FLOATS = {5: 64, 6: 32, 7: 16}
_SIGNED = {17: 64, 18: 32, 19: 16, 20: 8}
_UNSIGNED = {23: 64, 24: 32, 25: 16, 26: 8, 27: 4, 28: 2, 29: 1, 36: 6, 37: 3}
_MOST = 1 << 24  # elements that one value may stand for: a damaged shape asks for any memory


@dataclass(frozen=True)
class Element:
    """The type of a tensor's elements: "float", "signed" or "unsigned", and its width."""

    kind: str
    bits: int


@dataclass(frozen=True)
class Constant:
    """A tensor in the file.

    Attributes:
        shape: of the tensor.
        element: type of its elements.
        data: the bytes: all elements, or one that stands for all.
        start: first byte in the file.
        blob: the resource that holds them; None if the program itself does.
    """

    shape: tuple[int, ...]
    element: Element
    data: memoryview
    start: int
    blob: ResourceBlob | None

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def is_whole(self) -> bool:
        """Whether every element has bytes of its own."""
        return len(self.data) == -(-self.size * self.element.bits // 8)

    def floats(self) -> NDArray[np.floating]:
        """The elements of a tensor of floats. Raises DamagedError."""
        if self.element.kind != "float":
            raise DamagedError(f"{self.element.kind} integers in place of floats")
        one = len(self.data) * 8 == self.element.bits and self.size <= _MOST
        if not self.is_whole and not one:
            raise self._misfit()
        values = np.frombuffer(self.data, f"<f{self.element.bits // 8}")
        return np.broadcast_to(values, self.size).reshape(self.shape).copy()

    def indices(self) -> NDArray[np.uint8]:
        """The elements of a tensor of unsigned integers of up to 8 bits. Raises DamagedError."""
        kind, bits = self.element.kind, self.element.bits
        if kind != "unsigned" or bits > 8:
            raise DamagedError(f"indices are {kind} of {bits} bits")
        if len(self.data) != packed_size(self.size, bits):
            raise self._misfit()
        return unpack(bytes(self.data), bits, self.size).reshape(self.shape)

    def integer(self) -> int:
        """The only element of a tensor of signed integers. Raises DamagedError."""
        if self.element.kind != "signed" or self.size != 1 or not self.is_whole:
            raise DamagedError(f"a tensor of shape {self.shape} in place of one integer")
        return int.from_bytes(self.data, "little", signed=True)

    def _misfit(self) -> DamagedError:
        return DamagedError(f"{len(self.data)} bytes for a tensor of shape {self.shape}")


def constant(tables: Tables, attribute: int, kind: int) -> Constant | None:
    """A tensor, or None if it is something else.

    Args:
        tables: of the file.
        attribute: number of the attribute with its elements.
        kind: number of its type.
    """
    held, tensor = at(tables.attributes, attribute), _tensor(tables, kind)
    if not _known_entry(held) or tensor is None:
        return None
    cursor = held.data.again()
    code = cursor.number()
    if code == _RESOURCE:
        blob = at(tables.blobs, cursor.number())
        return None if blob is None else Constant(*tensor, blob.data, blob.start, blob)
    if code != _INLINE:
        return None
    cursor.byte()  # whether it stands for all
    size = cursor.number()
    start = cursor.place
    return Constant(*tensor, cursor.take(size), start, None)


def _known_entry(entry: TableEntry) -> bool:
    return entry.custom and entry.dialect == _DIALECT


def _tensor(tables: Tables, number: int) -> tuple[tuple[int, ...], Element] | None:
    """Shape and element of a type; None if it is no tensor with these elements."""
    entry = at(tables.types, number)
    cursor = entry.data.again()
    if not _known_entry(entry) or cursor.number() != _TENSOR:
        return None
    shape = tuple(n >> 1 ^ -(n & 1) for n in cursor.numbers())
    element = _element(at(tables.types, cursor.number()))
    return None if element is None or any(n < 0 for n in shape) else (shape, element)


def _element(entry: TableEntry) -> Element | None:
    if not _known_entry(entry):
        return None
    code = entry.data.again().number()
    for kind, widths in (("float", _FLOATS), ("signed", _SIGNED), ("unsigned", _UNSIGNED)):
        if code in widths:
            return Element(kind, widths[code])
    return None
