"""What a device gave for the inputs of a golden bundle: a folder that any program can write.

    outputs.json        {"format": "dkm-deploy device outputs", "version": 1,
                         "golden": SHA-256 of the bundle's SHA256SUMS, "runtime": what ran where,
                         "outputs": [{"name", "dtype", "shape", "raw"}, ..]}
    raw/outputs.0.bin   a tensor each: little-endian, C order, nothing around it

It needs no sums: what is damaged is no longer what is expected, and so is missed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dkm_deploy.errors import DkmError
from dkm_deploy.validation.golden.bundle import SUMS, holds, read_text, sha256

FORMAT, VERSION = "dkm-deploy device outputs", 1
MANIFEST = "outputs.json"

_RAW = re.compile(r"(?:raw/)?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_DTYPES = ("float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool")


@dataclass(frozen=True)
class Returned:
    """Outputs of a device.

    Attributes:
        outputs: by name.
        runtime: what ran where, in the device's words.
    """

    outputs: Mapping[str, NDArray[Any]]
    runtime: str


def read_returned(folder: Path, golden: Path) -> Returned:
    """Read what a device gave for the bundle ``golden``.

    Raises:
        DkmError: the folder is not of this kind, not whole, or of another bundle.
    """
    path = folder / MANIFEST
    text = read_text(path, "a folder of device outputs")
    try:
        manifest = json.loads(text)
        _check_header(manifest, golden)
        outputs = {str(e["name"]): _tensor(folder, e) for e in manifest["outputs"]}
        return Returned(outputs, str(manifest["runtime"]))
    except DkmError as error:
        raise DkmError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DkmError(f"{path}: damaged: {error!r}") from error


def _check_header(manifest: Any, golden: Path) -> None:
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DkmError(f"not {FORMAT}")
    if manifest.get("version") != VERSION:
        raise DkmError(f"version {manifest.get('version')!r} of the format; this reads {VERSION}")
    if manifest["golden"] != sha256(golden / SUMS):
        raise DkmError(f"these outputs are not for {golden}: its SHA256SUMS has another SHA-256")


def _tensor(folder: Path, entry: Mapping[str, Any]) -> NDArray[Any]:
    name, raw, shape = entry["name"], entry["raw"], entry["shape"]
    if entry["dtype"] not in _DTYPES:
        raise DkmError(f"{name}: dtype {entry['dtype']!r}; it must be one of {', '.join(_DTYPES)}")
    if not all(type(n) is int and n >= 0 for n in shape):
        raise DkmError(f"{name}: {shape!r} is no shape")
    if not _RAW.fullmatch(raw) or not holds(folder, raw):
        raise DkmError(f"{name}: no file {raw!r} in the folder")
    dtype = np.dtype(entry["dtype"]).newbyteorder("<")
    file = folder / raw
    wanted, found = prod(shape) * dtype.itemsize, file.stat().st_size
    if found != wanted:
        raise DkmError(f"{raw}: {found:,} bytes; {entry['dtype']} of shape {shape} has {wanted:,}")
    array = np.frombuffer(file.read_bytes(), dtype).reshape(shape)
    return array.astype(dtype.newbyteorder("="))
