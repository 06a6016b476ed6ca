"""Element types of ML programs, and how their bytes become numpy arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dkm_deploy.errors import DkmError
from dkm_deploy.packing import unpack


@dataclass(frozen=True)
class DType:
    """An element type.

    Attributes:
        name: as ML programs spell it: "fp16", "uint4", ..
        bits: bits of one element in a file.
        held: the numpy type that its values are held in.
    """

    name: str
    bits: int
    numpy_name: str

    @property
    def is_floating(self) -> bool:
        """Whether its values are floating-point."""
        return self.numpy_name.startswith("f")


FP32 = DType("fp32", 32, "f4")

_ALL = {
    dtype.name: dtype
    for dtype in (
        DType("bool", 8, "?"),
        DType("string", 0, "U"),
        DType("fp16", 16, "f2"),
        FP32,
        DType("fp64", 64, "f8"),
        DType("bf16", 16, "f4"),
        DType("int4", 4, "i1"),
        DType("int8", 8, "i1"),
        DType("int16", 16, "i2"),
        DType("int32", 32, "i4"),
        DType("int64", 64, "i8"),
        *(DType(f"uint{bits}", bits, "u1") for bits in (1, 2, 3, 4, 6, 8)),
        DType("uint16", 16, "u2"),
        DType("uint32", 32, "u4"),
        DType("uint64", 64, "u8"),
    )
}

# Numbers of the enum DataType in MIL.proto, and of the blob records in weight.bin.
_PROGRAM = {
    1: "bool", 2: "string", 10: "fp16", 11: "fp32", 12: "fp64", 13: "bf16",
    21: "int8", 22: "int16", 23: "int32", 24: "int64", 25: "int4",
    31: "uint8", 32: "uint16", 33: "uint32", 34: "uint64",
    35: "uint4", 36: "uint2", 37: "uint1", 38: "uint6", 39: "uint3",
}  # fmt: skip
_BLOB = {
    1: "fp16", 2: "fp32", 3: "uint8", 4: "int8", 5: "bf16", 6: "int16", 7: "uint16", 8: "int4",
    9: "uint1", 10: "uint2", 11: "uint4", 12: "uint3", 13: "uint6", 14: "int32", 15: "uint32",
}  # fmt: skip


def program_dtype(number: int) -> DType:
    """The type with this number in a program. Raises DkmError if there is none."""
    return _known_dtype(_PROGRAM, number, "the program")


def blob_dtype(number: int) -> DType:
    """The type with this number in a weight file. Raises DkmError if there is none."""
    return _known_dtype(_BLOB, number, "the weight file")


def program_number(name: str) -> int:
    """The number that a program has for the type called ``name``, such as "uint4"."""
    return next(number for number, known in _PROGRAM.items() if known == name)


def blob_number(name: str) -> int:
    """The number that a weight file has for the type called ``name``."""
    return next(number for number, known in _BLOB.items() if known == name)


def nbytes(dtype: DType, count: int) -> int:
    """Bytes that ``count`` elements fill in a file; sub-byte elements are packed."""
    return -(-count * dtype.bits // 8)


def from_bytes(
    data: NDArray[np.uint8] | bytes, dtype: DType, shape: tuple[int, ...]
) -> NDArray[Any]:
    """Decode the bytes of a tensor.

    Raises:
        DkmError: the number of bytes does not fit the type and shape.
    """
    raw = np.frombuffer(data, np.uint8)
    count = math.prod(shape)
    if raw.size != nbytes(dtype, count):
        raise DkmError(
            f"{dtype.name} of shape {shape} fills {nbytes(dtype, count)} bytes, not {raw.size}"
        )
    if dtype.bits < 8:
        return _sub_byte(raw, dtype, count).reshape(shape)
    if dtype.name == "bf16":
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    return raw.view(np.dtype(dtype.numpy_name).newbyteorder("<")).reshape(shape)


def _sub_byte(raw: NDArray[np.uint8], dtype: DType, count: int) -> NDArray[Any]:
    values = unpack(raw, dtype.bits, count)
    if dtype.name != "int4":
        return values
    return ((values ^ 8).astype(np.int8) - np.int8(8)).astype(np.int8)


def _known_dtype(table: dict[int, str], number: int, where: str) -> DType:
    if number not in table:
        raise DkmError(f"{where} has the unknown element type number {number}")
    return _ALL[table[number]]
