"""Write MLIR bytecode, part by part: Core AI programs for the tests, without Apple's packages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONSTANT = "aicode.primitive.constant_v1"
DECODE = "aicode.primitive.lut_to_dense_v1"
SCALE = "aicode.primitive.blockwise_shift_scale_v2"

F16, F32, F64, S32, U2, U4, U8, U16 = 7, 6, 5, 18, 28, 27, 26, 25  # codes of types of elements
STRINGS, DIALECTS, ATTRIBUTES, ATTRIBUTE_OFFSETS, IR, RESOURCES, RESOURCE_OFFSETS = range(7)
PROPERTIES = 8


def number(value: int) -> bytes:
    """A number in as few bytes as it takes."""
    for more in range(8):
        if value < 1 << 7 * (more + 1):
            return (value << (more + 1) | 1 << more).to_bytes(more + 1, "little")
    return b"\0" + value.to_bytes(8, "little")


def numbers(*values: int) -> bytes:
    """Numbers one after the other."""
    return b"".join(number(value) for value in values)


def listed(*values: int) -> bytes:
    """How many numbers, and these."""
    return numbers(len(values), *values)


def flagged(value: int, flag: bool = False) -> bytes:
    """A number with a flag."""
    return number(value << 1 | flag)


def section(kind: int, *parts: bytes) -> bytes:
    """A section, without alignment."""
    content = b"".join(parts)
    return bytes([kind]) + number(len(content)) + content


def bytecode(*parts: bytes, version: int = 6) -> bytes:
    """A file of these sections."""
    return b"ML\xefR" + number(version) + b"tests\0" + b"".join(parts)


def strings(*names: str) -> bytes:
    """The section of names."""
    held = [name.encode() + b"\0" for name in names]
    return section(STRINGS, listed(*(len(name) for name in reversed(held))), *held)


@dataclass(frozen=True)
class Op:
    """An operation of a program, which makes one value.

    Attributes:
        name: with its dialect.
        operands: numbers of the values that it takes.
        attribute: number of the attribute that its properties name; None for no properties.
        result: number of its type.
    """

    name: str
    operands: tuple[int, ...] = ()
    attribute: int | None = None
    result: int = 0


@dataclass(frozen=True)
class Tensor:
    """A constant of a program: in a resource called ``key``, or in the program itself."""

    shape: tuple[int, ...]
    code: int
    data: bytes
    key: str | None = None


def program(tensors: Sequence[Tensor], operations: Iterable[Op] = ()) -> bytes:
    """A program whose first values are these constants, one each, and then what operations make."""
    made = [Op(CONSTANT, (), i, len(tensors) + i) for i in range(len(tensors))] + [*operations]
    keys = [tensor.key for tensor in tensors if tensor.key is not None]
    ops = [*dict.fromkeys(op.name.removeprefix("aicode.") for op in made)]
    attributes, resources, blobs = [], [], []
    for tensor in tensors:
        if tensor.key is None:
            attributes.append(numbers(6) + b"\0" + number(len(tensor.data)) + tensor.data)
            continue
        attributes.append(numbers(7, len(blobs)))
        blobs.append(numbers(1, len(tensor.data)) + tensor.data)
        resources.append(numbers(1 + len(ops) + len(resources), len(blobs[-1])) + b"\0")
    types = [number(tensor.code) for tensor in tensors]
    types += [
        number(2) + listed(*(n << 1 for n in tensor.shape)) + number(i)
        for i, tensor in enumerate(tensors)
    ]
    entries = [*attributes, *types]
    offsets = [numbers(len(attributes), len(types))]
    for group in (attributes, types):
        offsets.append(numbers(0, len(group)) if group else b"")
        offsets += [flagged(len(entry), True) for entry in group]
    owned = [number(op.attribute) for op in made if op.attribute is not None]
    return bytecode(
        strings("aicode", *ops, *keys),
        section(
            DIALECTS,
            number(1),
            flagged(0),
            number(len(ops)),
            numbers(0, len(ops)) + b"".join(flagged(1 + i) for i in range(len(ops))),
        ),
        section(ATTRIBUTES, *entries),
        section(ATTRIBUTE_OFFSETS, *offsets),
        section(IR, _block(made, ops)),
        section(RESOURCES, *blobs),
        section(RESOURCE_OFFSETS, number(0), numbers(0, len(resources)), *resources),
        section(PROPERTIES, number(len(owned)), *(number(len(o)) + o for o in owned)),
    )


def _block(made: Sequence[Op], ops: Sequence[str]) -> bytes:
    """One operation whose only region, isolated, has all others: the file's own has no values."""
    inner, owned = b"", 0
    for op in made:
        mask = 2 | 4 | (64 if op.attribute is not None else 0)
        inner += number(ops.index(op.name.removeprefix("aicode."))) + bytes([mask]) + number(0)
        if op.attribute is not None:
            inner += number(owned)
            owned += 1
        inner += listed(op.result) + listed(*op.operands)
    region = numbers(1, len(made)) + flagged(len(made)) + inner
    return flagged(1) + number(0) + bytes([16]) + number(0) + flagged(1, True) + section(IR, region)


def asset(path: Path, data: bytes, metadata: Any = None) -> Path:
    """An asset of these bytes."""
    path.mkdir()
    (path / "main.mlirb").write_bytes(data)
    (path / "main.hash").write_bytes(hashlib.sha256(data).digest())
    (path / "metadata.json").write_text(json.dumps({} if metadata is None else metadata))
    return path
