"""The protobuf wire format: where each field of a message lies in the file's own bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5


@dataclass(frozen=True)
class Field:
    """One field in the order of the file.

    Attributes:
        number: field number of the message's schema.
        sized: whether it holds bytes, a text or a message, which start with their length.
        start: first byte, that of the tag.
        content: first byte behind the tag and, for bytes and messages, the length.
        end: one past the last byte.
    """

    number: int
    sized: bool
    start: int
    content: int
    end: int


def fields(data: memoryview, start: int, end: int) -> Iterator[Field]:
    """The fields of the message in ``data[start:end]``.

    Raises:
        ValueError: the bytes are not a message.
    """
    while start < end:
        tag, content = _varint(data, start)
        kind = tag & 7
        if kind == _VARINT:
            _, stop = _varint(data, content)
        elif kind == _BYTES:
            length, content = _varint(data, content)
            stop = content + length
        elif kind in (_EIGHT, _FOUR):
            stop = content + (8 if kind == _EIGHT else 4)
        else:
            raise ValueError(f"byte {start}: no field of a protobuf message starts here")
        if stop > end:
            raise ValueError(f"byte {start}: a field is longer than the message around it")
        yield Field(tag >> 3, kind == _BYTES, start, content, stop)
        start = stop


def _varint(data: memoryview, start: int) -> tuple[int, int]:
    """The number that starts at ``start``, and the place behind it."""
    value = shift = 0
    for place in range(start, min(start + 10, len(data))):
        value |= (data[place] & 0x7F) << shift
        shift += 7
        if data[place] < 0x80:
            return value, place + 1
    raise ValueError(f"byte {start}: an integer is cut short")
