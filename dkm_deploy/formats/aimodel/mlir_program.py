"""The operations of a Core AI program, with what each takes from which."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from dkm_deploy.errors import DkmError
from dkm_deploy.formats.aimodel.asset import Asset
from dkm_deploy.formats.aimodel.byte_cursor import Cursor, DamagedError
from dkm_deploy.formats.aimodel.mlir_sections import IR, Tables, at, section, sections, tables

_ATTRIBUTES, _RESULTS, _OPERANDS, _SUCCESSORS, _REGIONS, _ORDERS, _PROPERTIES = (
    1 << bit for bit in range(7)
)


@dataclass(frozen=True, eq=False)
class Operation:
    """An operation.

    Attributes:
        name: with its dialect, such as "coreai.constant".
        properties: the bytes of what belongs to it; None if nothing does.
        results: numbers of the types that it gives.
        operands: the operations that made what it takes; None for an argument.
    """

    name: str
    properties: Cursor | None
    results: tuple[int, ...]
    operands: tuple[Operation | None, ...]


@dataclass(frozen=True)
class MLIRProgram:
    """A parsed program: the tables, and all operations in the order of the file."""

    tables: Tables
    operations: tuple[Operation, ...]


def open_program(asset: Asset) -> MLIRProgram:
    """The program of an asset. Raises DkmError if it is damaged or of an unknown kind."""
    try:
        return parse(asset.program)
    except DamagedError as error:
        raise damage_error(asset.path, error) from error


def damage_error(path: Path, error: DamagedError) -> DkmError:
    """What to say of an asset whose program cannot be read."""
    return DkmError(f"{path}: its program is damaged or of an unknown kind: {error}")


def parse(data: bytes) -> MLIRProgram:
    """Parse MLIR bytecode. Raises DamagedError."""
    found = sections(memoryview(data))
    known = tables(found)
    if IR not in found:
        raise DamagedError("it holds no program")
    try:
        operations = tuple(_block(known, found[IR], []))
    except RecursionError as error:
        raise DamagedError("regions are nested too deep") from error
    return MLIRProgram(known, operations)


_Values = list[Operation | None]


def _block(
    known: Tables, cursor: Cursor, values: _Values, start: int = 0
) -> Generator[Operation, None, int]:
    """The operations of a block, nested ones after the one around them.

    Args:
        known: tables.
        cursor: at the block.
        values: the makers of all values in scope; those from ``start`` on are of this region.
        start: number of the next value.

    Returns:
        The number of the value after the last one.
    """
    count, has_arguments = cursor.flagged_number()
    if has_arguments:
        start = _arguments(cursor, start)
    for _ in range(count):
        operation, regions = _operation(known, cursor, values)
        results = len(operation.results)
        if start + results > len(values):
            raise DamagedError(f"byte {cursor.place}: more values than the region has")
        values[start : start + results] = [operation] * results
        start += results
        yield operation
        yield from _regions(known, cursor, values, *regions)
    return start


def _arguments(cursor: Cursor, start: int) -> int:
    count = cursor.number()
    for _ in range(count):
        _type, located = cursor.flagged_number()
        if located:
            cursor.number()
    if cursor.byte():
        raise DamagedError(f"byte {cursor.place}: use-list orders are not supported")
    return start + count


def _operation(
    known: Tables, cursor: Cursor, values: _Values
) -> tuple[Operation, tuple[int, bool]]:
    """An operation, how many regions it has, and if they are isolated."""
    name, mask = at(known.operations, cursor.number()), cursor.byte()
    cursor.number()  # location
    if mask & _ATTRIBUTES:
        cursor.number()
    owned = at(known.properties, cursor.number()) if mask & _PROPERTIES else None
    results = cursor.numbers() if mask & _RESULTS else []
    operands = cursor.numbers() if mask & _OPERANDS else []
    if mask & _SUCCESSORS:
        cursor.numbers()
    if mask & _ORDERS:
        raise DamagedError(f"byte {cursor.place}: use-list orders are not supported")
    regions = cursor.flagged_number() if mask & _REGIONS else (0, False)
    makers = tuple(at(values, operand) for operand in operands)
    return Operation(name, owned, tuple(results), makers), regions


def _regions(
    known: Tables, cursor: Cursor, values: _Values, count: int, isolated: bool
) -> Iterator[Operation]:
    for _ in range(count):
        if isolated:
            yield from _region(known, section(cursor)[1], [])
        else:
            yield from _region(known, cursor, values)


def _region(known: Tables, cursor: Cursor, values: _Values) -> Iterator[Operation]:
    blocks = cursor.number()
    if not blocks:
        return
    count, start = cursor.number(), len(values)
    if count > cursor.remaining:
        raise DamagedError(f"byte {cursor.place}: {count} values in {cursor.remaining} bytes")
    values.extend([None] * count)
    next_value = start
    for _ in range(blocks):
        next_value = yield from _block(known, cursor, values, next_value)
    del values[start:]
