"""Write tables as a FlatBuffer: the same content gives the same bytes, and nothing twice.

ONNX Runtime's own files differ from process to process, for it walks hash maps, and repeat every
string and type. Here equal parts are stored once, but for the data of tensors, each of which is
kept so that every weight's bytes are its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import flatbuffers
from flatbuffers import number_types

from converters.ort.schema import IDENTIFIER, SCHEMA, Field

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from converters.ort.flatbuffer_reader import Table

# ONNX Runtime may use tensors where they lie in the file.
_DATA_ALIGNMENT = 16
_FLAGS = {
    "b": number_types.Int8Flags,
    "B": number_types.Uint8Flags,
    "i": number_types.Int32Flags,
    "I": number_types.Uint32Flags,
    "q": number_types.Int64Flags,
    "f": number_types.Float32Flags,
}


def build_file(root: Table) -> bytes:
    """The file whose outermost table is ``root``.

    Raises:
        flatbuffers.builder.BuilderSizeError: it has more than 2 GiB.
    """
    writer = _Writer()
    writer.builder.Finish(writer.table(root), IDENTIFIER)
    return bytes(writer.builder.Output())


class _Writer:
    def __init__(self) -> None:
        self.builder = flatbuffers.Builder(1 << 16)
        self._written: dict[Hashable, int] = {}

    def table(self, table: Table) -> int:
        """Where the table is, counted from the end of the file."""
        stored = [
            (slot, field, self._value(field, table[field.name]))
            for slot, field in enumerate(SCHEMA[table.kind])
            if field.name in table.values
        ]
        key = (table.kind, *((slot, value) for slot, _, value in stored))
        return self._once(key, lambda: self._table(table.kind, stored))

    def _table(self, kind: str, stored: list[tuple[int, Field, Any]]) -> int:
        self.builder.StartObject(len(SCHEMA[kind]))
        for slot, field, value in stored:
            if field.kind == "number" and not field.many:
                flags = _FLAGS[field.format]
                self.builder.PrependSlot(flags, slot, value, field.default)
            else:
                self.builder.PrependUOffsetTRelativeSlot(slot, value, 0)
        return int(self.builder.EndObject())

    def _value(self, field: Field, value: Any) -> Any:
        """A number as it is, all else as the place where it is written."""
        if not field.many:
            if field.kind == "number":
                return value
            return self._string(value) if field.kind == "string" else self.table(value)
        if field.format == "B":
            return self._data(value)
        if field.kind == "number":
            # repr: 0.0 and -0.0 are equal, but not the same.
            key = (field.format, repr(value))
            return self._once(key, lambda: self._numbers(field.format, value))
        element = self._string if field.kind == "string" else self.table
        places = tuple(element(each) for each in value)
        return self._once(("offsets", places), lambda: self._offsets(places))

    def _string(self, value: bytes) -> int:
        return self._once(value, lambda: int(self.builder.CreateString(value)))

    def _offsets(self, places: tuple[int, ...]) -> int:
        self.builder.StartVector(4, len(places), 4)
        for place in reversed(places):
            self.builder.PrependUOffsetTRelative(place)
        return int(self.builder.EndVector())

    def _numbers(self, letters: str, values: tuple[Any, ...]) -> int:
        flags = [_FLAGS[letter] for letter in letters]
        widths = [flag.bytewidth for flag in flags]
        self.builder.StartVector(sum(widths), len(values), max(widths))
        for value in reversed(values):
            members = value if len(letters) > 1 else (value,)
            for flag, member in zip(reversed(flags), reversed(members), strict=True):
                self.builder.Prepend(flag, member)
        return int(self.builder.EndVector())

    def _data(self, data: memoryview) -> int:
        self.builder.StartVector(1, len(data), _DATA_ALIGNMENT)
        head = self.builder.Head() - len(data)
        self.builder.Bytes[head : head + len(data)] = data
        self.builder.head = head
        return int(self.builder.EndVector())

    def _once(self, key: Hashable, write: Callable[[], int]) -> int:
        """Where what ``key`` stands for is written; it is written the first time."""
        if key not in self._written:
            self._written[key] = write()
        return self._written[key]
