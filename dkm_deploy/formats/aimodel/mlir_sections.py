"""The sections of MLIR bytecode, and the tables in them that others refer to by number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from dkm_deploy.formats.aimodel.byte_cursor import Cursor, DamagedError, decode_text

_T = TypeVar("_T")

_MAGIC = b"ML\xefR"
_VERSIONS = range(5, 7)  # 5 gave operations properties of their own
STRINGS, DIALECTS, ATTRIBUTES, ATTRIBUTE_OFFSETS, IR, RESOURCES, RESOURCE_OFFSETS = range(7)
PROPERTIES = 8
_BLOB = 0  # kind of a resource


@dataclass(frozen=True)
class TableEntry:
    """An attribute or a type: its dialect, and its bytes; ``custom`` if they are not text."""

    dialect: str
    custom: bool
    data: Cursor


@dataclass(frozen=True)
class ResourceBlob:
    """A resource: bytes kept beside the program, such as a large constant.

    Attributes:
        key: its name.
        start: first byte in the file.
        data: the bytes.
        overhead: bytes before it that say how long it is and align it.
    """

    key: str
    start: int
    data: memoryview
    overhead: int


@dataclass(frozen=True)
class Tables:
    """What the program refers to by number.

    Attributes:
        strings: all names.
        operations: names of operations with their dialect, such as "coreai.constant".
        attributes: all attributes.
        types: all types.
        properties: what belongs to single operations.
        blobs: all resources; None for one that is no blob.
    """

    strings: list[str]
    operations: list[str]
    attributes: list[TableEntry]
    types: list[TableEntry]
    properties: list[Cursor]
    blobs: list[ResourceBlob | None]


def sections(data: memoryview) -> dict[int, Cursor]:
    """The sections of a file by their number. Raises DamagedError."""
    cursor = Cursor(data, 0, len(data))
    if cursor.take(len(_MAGIC)) != _MAGIC:
        raise DamagedError("it is not MLIR bytecode")
    version = cursor.number()
    if version not in _VERSIONS:
        raise DamagedError(f"bytecode version {version} is unknown; 5 and 6 are known")
    cursor.text()  # the producer
    found: dict[int, Cursor] = {}
    while cursor.remaining:
        number, part = section(cursor)
        if number in found:
            raise DamagedError(f"byte {cursor.place}: section {number} is there twice")
        found[number] = part
    return found


def section(cursor: Cursor) -> tuple[int, Cursor]:
    """The number and the content of the next section."""
    first = cursor.byte()
    length = cursor.number()
    if first & 0x80:
        cursor.align(cursor.number())
    return first & 0x7F, cursor.part(length)


def tables(found: dict[int, Cursor]) -> Tables:
    """Read all tables. Raises DamagedError."""
    strings = _strings(_section_of(found, STRINGS))
    dialects, operations = _dialects(_section_of(found, DIALECTS), strings)
    offsets = _section_of(found, ATTRIBUTE_OFFSETS)
    data = _section_of(found, ATTRIBUTES)
    counts = offsets.number(), offsets.number()
    attributes, types = (list(_entries(offsets, data, count, dialects)) for count in counts)
    properties = _properties(found[PROPERTIES]) if PROPERTIES in found else []
    blobs = list(_blobs(found, strings))
    return Tables(strings, operations, attributes, types, properties, blobs)


def _section_of(found: dict[int, Cursor], number: int) -> Cursor:
    if number not in found:
        raise DamagedError(f"section {number} is missing")
    return found[number]


def _strings(cursor: Cursor) -> list[str]:
    """Lengths come last to first, each with the zero behind the name."""
    lengths = cursor.numbers()[::-1]
    return [decode_text(bytes(cursor.take(length))[:-1]) for length in lengths]


def _dialects(cursor: Cursor, strings: list[str]) -> tuple[list[str], list[str]]:
    names = []
    for _ in range(cursor.number()):
        name, versioned = cursor.flagged_number()
        names.append(at(strings, name))
        if versioned:
            section(cursor)
    operations: list[str] = []
    count = cursor.number()
    while len(operations) < count:
        dialect = at(names, cursor.number())
        for _ in range(cursor.number()):
            name, _registered = cursor.flagged_number()
            operations.append(f"{dialect}.{at(strings, name)}")
    return names, operations


def _entries(
    offsets: Cursor, data: Cursor, count: int, dialects: list[str]
) -> Iterator[TableEntry]:
    """Of all attributes or all types; groups of one dialect each."""
    done = 0
    while done < count:
        dialect = at(dialects, offsets.number())
        for _ in range(offsets.number()):
            size, custom = offsets.flagged_number()
            yield TableEntry(dialect, custom, data.part(size))
            done += 1


def _properties(cursor: Cursor) -> list[Cursor]:
    return [cursor.part(cursor.number()) for _ in range(cursor.number())]


def _blobs(found: dict[int, Cursor], strings: list[str]) -> Iterator[ResourceBlob | None]:
    """Of all dialects, in the order in which they are numbered."""
    if RESOURCE_OFFSETS not in found:
        return
    offsets, data = found[RESOURCE_OFFSETS], _section_of(found, RESOURCES)
    for _ in range(offsets.number()):  # of other users than dialects, which have no numbers
        for _key, size, _kind in _resources(offsets):
            data.part(size)
    while offsets.remaining:
        for key, size, kind in _resources(offsets):
            start = data.place
            content = data.part(size)
            yield _blob(at(strings, key), content, start) if kind == _BLOB else None


def _resources(offsets: Cursor) -> Iterator[tuple[int, int, int]]:
    offsets.number()  # whose they are
    for _ in range(offsets.number()):
        yield offsets.number(), offsets.number(), offsets.byte()


def _blob(key: str, cursor: Cursor, start: int) -> ResourceBlob:
    alignment, size = cursor.number(), cursor.number()
    cursor.align(alignment)
    place = cursor.place
    return ResourceBlob(key, place, cursor.take(size), place - start)


def at(table: list[_T], number: int) -> _T:
    """The entry of a table. Raises DamagedError if it has no such one."""
    if not 0 <= number < len(table):
        raise DamagedError(f"index {number} in a table of {len(table)}")
    return table[number]
