"""Rows of tables that a program does not read: in the weight file, and in no operation."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.coreml.tables.table_rows import TableRows
from dkm_deploy.errors import DkmError
from dkm_deploy.formats.ledger import Kind
from dkm_deploy.formats.mlpackage.dtypes import from_bytes
from dkm_deploy.formats.mlpackage.package import Package
from dkm_deploy.formats.mlpackage.weight_blobs import WeightBlob, find_blob
from dkm_deploy.packing import pack, packed_size, unpack
from dkm_deploy.palette import Palette

WEIGHT_FILE = "weight.bin"
WEIGHT_FILE_IN_PROGRAM = f"@model_path/weights/{WEIGHT_FILE}"  # as a program calls it
_KINDS: Mapping[str, Kind] = {"indices": "indices", "lut": "lut", "scale": "lut"}


def store(rest: Palette, folder: Path, *, luts: bool) -> dict[str, int]:
    """Append rows to a weight file.

    Args:
        rest: as the file is to hold it.
        folder: of the file.
        luts: whether the rows have LUTs of their own, which are stored too.

    Returns:
        Where in the file the records are of its "indices", as a bit stream of bytes, and of its
        "lut" and "scale", where it has them.
    """
    from coremltools.libmilstoragepython import _BlobStorageWriter

    writer = _BlobStorageWriter(str(folder / WEIGHT_FILE), False)
    offsets = {"indices": writer.write_uint8_data(pack(rest.indices, rest.bits))}
    floats = {"lut": rest.lut if luts else None, "scale": rest.scale}
    return offsets | {k: _write(writer, v) for k, v in floats.items() if v is not None}


def _write(writer: Any, values: NDArray[np.floating]) -> int:
    flat = np.ascontiguousarray(values).reshape(-1)
    if flat.dtype == np.float16:
        return int(writer.write_fp16_data(flat.view(np.uint16)))
    return int(writer.write_float_data(flat))


def restore(
    package: Package, offsets: Mapping[str, int], part: TableRows, like: Palette, count: int
) -> Palette:
    """Rows that :func:`store` has stored.

    Args:
        package: that holds them.
        offsets: where.
        part: which other rows of the same table ``like`` holds.
        like: their palette.
        count: how many blocks of rows to read.

    Raises:
        DkmError: they are not there, or of another size.
    """

    def shape(array: NDArray[Any]) -> tuple[int, ...]:
        return (len(array) // part.count * count, *array.shape[1:])

    size = prod(shape(like.indices))
    stream = _read(package, offsets, "indices", "uint8", (packed_size(size, like.bits),))
    indices = unpack(stream, like.bits, size).reshape(shape(like.indices))
    dtype, lut, scale = f"fp{like.lut.itemsize * 8}", like.lut, like.scale
    if part.luts:
        lut = _read(package, offsets, "lut", dtype, shape(lut))
    if scale is not None:
        scale = _read(package, offsets, "scale", dtype, shape(scale))
    return Palette(indices, lut, like.axis, scale=scale)


def stored_blobs(package: Package, offsets: Mapping[str, int]) -> dict[WeightBlob, Kind]:
    """What :func:`store` has stored, and what kind of bytes each is. Raises DkmError as it does."""
    return {_blob(package, offsets, k): _KINDS[k] for k in offsets}


def _read(
    package: Package, offsets: Mapping[str, int], key: str, dtype: str, shape: tuple[int, ...]
) -> NDArray[Any]:
    blob = _blob(package, offsets, key)
    if blob.dtype.name != dtype:
        raise DkmError(f"{blob.file}: the {key} of unread rows are {blob.dtype.name}, not {dtype}")
    return from_bytes(blob.read(), blob.dtype, shape)


def _blob(package: Package, offsets: Mapping[str, int], key: str) -> WeightBlob:
    if key not in _KINDS or key not in offsets:
        raise DkmError(f"the metadata does not say where the {key} of unread rows are")
    return find_blob(package.weight_file(WEIGHT_FILE_IN_PROGRAM), offsets[key])
