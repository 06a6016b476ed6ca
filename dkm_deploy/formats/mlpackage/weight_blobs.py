"""Weight files (weight.bin) of Core ML packages: records found, checked and read.

A file starts with a header of 64 bytes: the number of blobs and the version. Every blob has a
record of 64 bytes, to which the program points, followed by its data.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dkm_deploy.errors import DkmError, MissingFileError
from dkm_deploy.formats.mlpackage.dtypes import DType, blob_dtype

ALIGNMENT = 64
HEADER = struct.Struct("<II")
"""Number of blobs, version; zeros behind it up to ``ALIGNMENT``."""
RECORD = struct.Struct("<IIQQ")
"""Magic number, element type, bytes of the data, where the data starts."""
MAGIC = 0xDEADBEEF
VERSION = 2


@dataclass(frozen=True)
class WeightBlob:
    """One tensor in a weight file.

    Attributes:
        file: the weight file.
        dtype: the element type that its record states.
        start: where its data starts in the file.
        size_bytes: bytes of its data.
    """

    file: Path
    dtype: DType
    start: int
    size_bytes: int

    def read(self) -> NDArray[np.uint8]:
        """Its data, as a read-only view of the file."""
        if not self.size_bytes:
            return np.zeros(0, np.uint8)
        return np.memmap(self.file, np.uint8, "r", self.start, (self.size_bytes,))


def find_blob(file: Path, offset: int) -> WeightBlob:
    """The blob whose record lies at ``offset``.

    Raises:
        DkmError: the file is missing, cut short, of another version, or no record lies there.
    """
    if not file.is_file():
        raise MissingFileError(f"{file}: no such weight file")
    size = file.stat().st_size
    if offset < ALIGNMENT or offset + ALIGNMENT > size:
        raise DkmError(f"{file}: a weight at byte {offset} lies outside its {size} bytes")
    with file.open("rb") as stream:
        _, version = HEADER.unpack(stream.read(HEADER.size))
        stream.seek(offset)
        magic, number, length, start = RECORD.unpack(stream.read(RECORD.size))
    if version != VERSION:
        raise DkmError(
            f"{file}: weight file version {version}; only version {VERSION} is supported"
        )
    if magic != MAGIC:
        raise DkmError(f"{file}: no weight starts at byte {offset}, where the program expects one")
    if start < offset + ALIGNMENT or start + length > size:
        raise DkmError(
            f"{file}: the weight at byte {offset} should fill bytes {start} to {start + length}, "
            f"but the file has {size} bytes; it is cut short or damaged"
        )
    return WeightBlob(file, blob_dtype(number), start, length)
