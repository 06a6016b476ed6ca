"""Write a weight file (weight.bin) blob by blob: no more than one of them is in memory."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from dkm_deploy.errors import DkmError
from dkm_deploy.formats.mlpackage.dtypes import blob_number
from dkm_deploy.formats.mlpackage.weight_blobs import (
    ALIGNMENT,
    HEADER,
    MAGIC,
    RECORD,
    VERSION,
    find_blob,
)

_PADDING_BITS = RECORD.size  # where a record says how many bits of the last byte are unused
_CHUNK = 2**20


class WeightFileWriter:
    """Writes records and data, each at a multiple of 64 bytes, as coremltools does.

    Args:
        stream: an empty file, open for writing.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._count = 0
        stream.write(bytes(ALIGNMENT))

    def add(self, dtype: str, data: bytes, padding_bits: int = 0) -> int:
        """Append a blob.

        Args:
            dtype: of its elements, as ML programs spell it.
            data: its bytes.
            padding_bits: unused bits of the last byte, where elements are smaller than a byte.

        Returns:
            Where its record lies, which is what a program refers to.
        """
        record = bytearray(ALIGNMENT)
        record[_PADDING_BITS : _PADDING_BITS + 8] = padding_bits.to_bytes(8, "little")
        offset = self._add_record(record, blob_number(dtype), len(data))
        self._stream.write(data)
        return offset

    def copy(self, file: Path, offset: int) -> int:
        """Append the blob of another weight file whose record lies at ``offset``, as it is.

        Raises:
            DkmError: no blob lies there, or the file is cut short.
        """
        blob = find_blob(file, offset)
        with file.open("rb") as source:
            source.seek(offset)
            record = bytearray(source.read(ALIGNMENT))
            number = RECORD.unpack_from(record)[1]
            moved = self._add_record(record, number, blob.size_bytes)
            source.seek(blob.start)
            left = blob.size_bytes
            while left:
                chunk = source.read(min(left, _CHUNK))
                if not chunk:
                    raise DkmError(f"{file}: it became shorter while it was read")
                self._stream.write(chunk)
                left -= len(chunk)
        return moved

    def finish(self) -> None:
        """Write the header, which counts the blobs."""
        self._stream.seek(0)
        self._stream.write(HEADER.pack(self._count, VERSION))

    def _add_record(self, record: bytearray, number: int, size: int) -> int:
        """Append a record; its type, size and place are set, what else it says stays."""
        self._stream.write(bytes(-self._stream.tell() % ALIGNMENT))
        offset = self._stream.tell()
        RECORD.pack_into(record, 0, MAGIC, number, size, offset + ALIGNMENT)
        self._stream.write(record)
        self._count += 1
        return offset


def blob_size(data_size: int) -> int:
    """Bytes that a blob takes in a weight file: its record, and its data up to a multiple of 64."""
    return ALIGNMENT + data_size + -data_size % ALIGNMENT
