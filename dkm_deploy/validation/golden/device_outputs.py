"""What a device gave for the inputs of a golden bundle: a folder that any program can write.

    outputs.json        {"format": "dkm-deploy device outputs", "version": 1,
                         "golden": SHA-256 of the bundle's SHA256SUMS, "runtime": what ran where,
                         "outputs": [{"name", "dtype", "shape", "raw"}, ..]}
    raw/outputs.0.bin   a tensor each: little-endian, C order, nothing around it

It needs no sums: what is damaged is no longer what is expected, and so is missed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dkm_deploy._support.records import from_json
from dkm_deploy.errors import DkmError
from dkm_deploy.validation.golden.bundle import SUMS, has_file, read_text, sha256
from dkm_deploy.validation.golden.manifest import TensorEntry

MANIFEST = "outputs.json"

_RAW = re.compile(r"(?:raw/)?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_DTYPES = ("float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool")


@dataclass(frozen=True)
class _Manifest:
    """What ``outputs.json`` has."""

    format: Literal["dkm-deploy device outputs"]
    version: Literal[1]
    golden: str
    runtime: str
    outputs: tuple[TensorEntry, ...]


@dataclass(frozen=True)
class DeviceOutputs:
    """Outputs of a device.

    Attributes:
        outputs: by name.
        runtime: what ran where, in the device's words.
    """

    outputs: Mapping[str, NDArray[Any]]
    runtime: str


def read_returned(folder: Path, golden: Path) -> DeviceOutputs:
    """Read what a device gave for the bundle ``golden``.

    Raises:
        DkmError: the folder is not of this kind, not whole, or of another bundle.
    """
    path = folder / MANIFEST
    text = read_text(path, "a folder of device outputs")
    try:
        manifest = from_json(text, _Manifest, more_keys=True)
        if manifest.golden != sha256(golden / SUMS):
            told = "its SHA256SUMS has another SHA-256"
            raise DkmError(f"these outputs are not for {golden}: {told}")
        outputs = {entry.name: _tensor(folder, entry) for entry in manifest.outputs}
        return DeviceOutputs(outputs, manifest.runtime)
    except DkmError as error:
        raise DkmError(f"{path}: {error}") from error


def _tensor(folder: Path, entry: TensorEntry) -> NDArray[Any]:
    name, raw, shape = entry.name, entry.raw, entry.shape
    if entry.dtype not in _DTYPES:
        raise DkmError(f"{name}: dtype {entry.dtype!r}; it must be one of {', '.join(_DTYPES)}")
    if min(shape, default=0) < 0:
        raise DkmError(f"{name}: {list(shape)} is not a valid shape")
    if not _RAW.fullmatch(raw) or not has_file(folder, raw):
        raise DkmError(f"{name}: no file {raw!r} in the folder")
    dtype = np.dtype(entry.dtype).newbyteorder("<")
    file = folder / raw
    wanted, found = prod(shape) * dtype.itemsize, file.stat().st_size
    if found != wanted:
        told = f"{entry.dtype} of shape {list(shape)} has {wanted:,}"
        raise DkmError(f"{raw}: {found:,} bytes; {told}")
    try:
        array = np.frombuffer(file.read_bytes(), dtype).reshape(shape)
    except (ValueError, OverflowError):  # none of 0 and a length that no array has
        raise DkmError(f"{name}: {list(shape)} is not a valid shape") from None
    return array.astype(dtype.newbyteorder("="))
