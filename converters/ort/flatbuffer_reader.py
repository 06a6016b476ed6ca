"""Read a FlatBuffer that nobody vouches for: every offset is checked, and every byte has one owner.

The classes that the FlatBuffers compiler generates for Python follow any offset. This reader
follows none that leaves the file, gives no byte to two parts, reads a part that is referred to
twice once, and stops where such sharing would blow the content up: time and memory stay within a
fixed multiple of the file.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from converters.ort.schema import IDENTIFIER, ROOT, SCHEMA, Field
from dkm_deploy.errors import DkmError

if TYPE_CHECKING:
    from collections.abc import Callable

_HEADER = 8  # offset of the root, identifier
_DEPTH = 64  # as FlatBuffers' own verifier has it
# Content with shared parts written out, against the file: ours have 2 to 3 times.
_REPEATS = 16
_ALWAYS = 1 << 20


@dataclass(frozen=True, eq=False)
class Table:
    """One table.

    Attributes:
        kind: its name in the schema.
        values: what is stored of it by field: numbers, ``bytes``, tables, or tuples of these;
            a ``memoryview`` for a vector of bytes.
    """

    kind: str
    values: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        """The value of a field; where it is not stored its default, ``b""``, ``()`` or None."""
        if name in self.values:
            return self.values[name]
        return _default({field.name: field for field in SCHEMA[self.kind]}[name])


@dataclass(frozen=True)
class Span:
    """Bytes ``start`` to ``end`` of the file, which hold ``part`` of the table at ``owner``.

    ``part`` is a field's name for a string or a vector, else ``table`` or ``vtable``.
    """

    start: int
    end: int
    part: str
    owner: int


@dataclass(frozen=True)
class Document:
    """A file's content and where it lies.

    Attributes:
        root: the outermost table.
        tables: all tables by position.
        spans: in the order of the file, none overlapping; what lies between them is alignment.
    """

    root: Table
    tables: dict[int, Table]
    spans: tuple[Span, ...]


def read(data: memoryview) -> Document:
    """Read a file of ONNX Runtime's format.

    Raises:
        DkmError: the bytes are no such file, or damaged.
    """
    if bytes(data[4:_HEADER]) != IDENTIFIER:
        raise DkmError("not a file of ONNX Runtime's format: its identifier is missing")
    reader = _Reader(data)
    root = reader.table(ROOT, reader.offset(0), 0)
    spans = tuple(sorted(reader.spans.values(), key=lambda span: span.start))
    for before, after in pairwise(spans):
        if after.start < before.end:
            raise _damage_error(after.start, "two parts of the file overlap")
    return Document(root, reader.tables, spans)


class _Reader:
    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.tables: dict[int, Table] = {}
        self.spans = {0: Span(0, _HEADER, "table", 0)}
        # By position and kind: what is there, its bytes of content and the depth below it.
        self._seen: dict[tuple[int, str], tuple[Any, int, int]] = {}
        self._content = 0
        self._deepest = 0

    def table(self, kind: str, start: int, depth: int) -> Table:
        """The table at ``start``, inside ``depth`` others."""
        table: Table = self._once(start, kind, depth, lambda: self._table(kind, start, depth))
        return table

    def offset(self, place: int) -> int:
        """Where the offset at ``place`` points to."""
        return place + int(self._numbers("I", place)[0])

    def _table(self, kind: str, start: int, depth: int) -> Table:
        vtable = start - self._numbers("i", start)[0]
        length, size = self._numbers("HH", vtable)
        if length < 4 or length % 2 or size < 4:
            raise _damage_error(vtable, f"no table has a layout of {length} bytes for {size}")
        self._claim(vtable, vtable + length, "vtable", start)
        self._claim(start, start + size, "table", start)
        values: dict[str, Any] = {}
        for field, slot in zip(SCHEMA[kind], range(vtable + 4, vtable + length, 2), strict=False):
            place = self._numbers("H", slot)[0]
            if place == 0 or field.kind == "unused":
                continue
            if place < 4 or place + _inline_size(field) > size:
                raise _damage_error(slot, f"field {kind}.{field.name} lies outside its table")
            values[field.name] = self._field(field, start + place, start, depth, values)
        table = self.tables[start] = Table(kind, values)
        return table

    def _field(
        self, field: Field, place: int, owner: int, depth: int, values: dict[str, Any]
    ) -> Any:
        if field.kind == "number" and not field.many:
            return self._numbers(field.format, place)[0]
        start = self.offset(place)
        if field.many:
            kind = f"[{field.format or ''.join(field.tables) or field.kind}]"
            return self._once(start, kind, depth, lambda: self._vector(field, start, owner, depth))
        if field.kind == "string":
            return self._string(start, field.name, owner)
        tag = values.get(f"{field.name}_type", 0) if field.kind == "union" else 1
        if not 1 <= tag <= len(field.tables):
            raise _damage_error(place, f"field {field.name} holds a table of unknown kind {tag}")
        return self.table(field.tables[tag - 1], start, depth + 1)

    def _vector(self, field: Field, start: int, owner: int, depth: int) -> Any:
        first, width = start + 4, struct.calcsize(f"<{field.format or 'I'}")
        end = first + self._numbers("I", start)[0] * width
        self._claim(start, end, field.name, owner)
        if field.format == "B":
            return self.data[first:end]
        if field.format:
            rows = struct.iter_unpack(f"<{field.format}", self.data[first:end])
            return tuple(row if len(row) > 1 else row[0] for row in rows)
        places = [self.offset(place) for place in range(first, end, 4)]
        if field.kind == "string":
            return tuple(self._string(place, field.name, owner) for place in places)
        return tuple(self.table(field.tables[0], place, depth + 1) for place in places)

    def _string(self, start: int, part: str, owner: int) -> bytes:
        end = start + 4 + self._numbers("I", start)[0]
        self._claim(start, end + 1, part, owner)  # a zero ends it
        return bytes(self.data[start + 4 : end])

    def _numbers(self, letters: str, place: int) -> tuple[Any, ...]:
        if not 0 <= place <= len(self.data) - struct.calcsize(f"<{letters}"):
            raise _damage_error(place, "an offset points outside the file")
        return struct.unpack_from(f"<{letters}", self.data, place)

    def _once(self, start: int, kind: str, depth: int, make: Callable[[], Any]) -> Any:
        """What ``make`` reads at ``start``. It is read once, but counts whenever referred to."""
        self._reach(start, depth)
        if (start, kind) in self._seen:
            value, content, height = self._seen[start, kind]
            self._count(start, content)
            self._reach(start, depth + height)
            return value
        content, deepest, self._deepest = self._content, self._deepest, depth
        value = make()
        self._seen[start, kind] = value, self._content - content, self._deepest - depth
        self._deepest = max(deepest, self._deepest)
        return value

    def _reach(self, start: int, depth: int) -> None:
        if depth > _DEPTH:
            raise _damage_error(start, f"tables are nested more than {_DEPTH} deep")
        self._deepest = max(self._deepest, depth)

    def _claim(self, start: int, end: int, part: str, owner: int) -> None:
        """Note the owner of bytes, before they are read. Strings and vtables may be shared."""
        if end > len(self.data):
            raise _damage_error(start, "a part of the file is longer than the file")
        self._count(start, end - start)
        if self.spans.setdefault(start, Span(start, end, part, owner)).end != end:
            raise _damage_error(start, "two parts of the file overlap")

    def _count(self, start: int, content: int) -> None:
        self._content += content
        if self._content > _REPEATS * len(self.data) + _ALWAYS:
            raise _damage_error(start, "parts of the file refer to each other over and over")


def _inline_size(field: Field) -> int:
    stored_inline = field.kind == "number" and not field.many
    return struct.calcsize(f"<{field.format}") if stored_inline else 4


def _damage_error(place: int, reason: str) -> DkmError:
    return DkmError(f"damaged: at byte {place}, {reason}")


def _default(field: Field) -> Any:
    if field.many:
        return ()
    return {"number": field.default, "string": b""}.get(field.kind)
