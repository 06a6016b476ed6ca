"""Ways to damage a file: of each kind, by bytes and by what the bytes mean."""

from __future__ import annotations

import hashlib
import json
import struct
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tomli_w

from converters.ort.flatbuffer_reader import read
from dkm_deploy.formats.aimodel.asset import DIGEST, METADATA, PROGRAM
from dkm_deploy.formats.mlpackage.proto import model_class
from tests.damage import damaged, damaged_json, damaged_message

MODEL = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"
MANIFEST = "Manifest.json"
SUMS = ("SHA256SUMS", DIGEST)

Edit = Callable[[bytes, int], bytes]


def message(kind: Callable[[], Any]) -> Edit:
    """Damage to the fields of a protobuf message."""
    return lambda data, seed: damaged_message(kind().FromString(data), seed).SerializeToString()


def as_json(data: bytes, seed: int) -> bytes:
    return json.dumps(damaged_json(json.loads(data), seed)).encode()


def as_toml(data: bytes, seed: int) -> bytes:
    try:
        return tomli_w.dumps(damaged_json(tomllib.loads(data.decode()), seed)).encode()
    except (AttributeError, TypeError):  # no table, or null, which TOML does not have
        return damaged(data, seed)


def header(data: bytes, seed: int) -> bytes:
    """Damage to the header of a safetensors file."""
    (size,) = struct.unpack("<Q", data[:8])
    forged = as_json(data[8 : 8 + size], seed)
    return struct.pack("<Q", len(forged)) + forged + data[8 + size :]


def layout(data: bytes, seed: int) -> bytes:
    """Damage to what a checkpoint says of its palettes."""
    return with_layout(data, lambda told: damaged_json(told, seed))


def with_layout(data: bytes, change: Callable[[Any], Any]) -> bytes:
    (size,) = struct.unpack("<Q", data[:8])
    table = json.loads(data[8 : 8 + size])
    (key,) = table["__metadata__"]
    table["__metadata__"][key] = json.dumps(change(json.loads(table["__metadata__"][key])))
    forged = json.dumps(table).encode()
    return struct.pack("<Q", len(forged)) + forged + data[8 + size :]


def words(data: bytes, seed: int) -> bytes:
    """Offsets, lengths and layouts of a .ort file in place of each other."""
    places = _places(data)
    random, changed = np.random.default_rng(seed), bytearray(data)
    for _ in range(random.integers(1, 4)):
        into, source = random.integers(len(places), size=2)
        changed[places[into] : places[into] + 4] = data[places[source] : places[source] + 4]
    return bytes(changed)


@cache
def _places(data: bytes) -> list[int]:
    spans = [span for span in read(memoryview(data)).spans if span.part != "raw_data"]
    return [at for span in spans for at in range(span.start, span.end - 3, 4)]


def rehash(asset: Path) -> None:
    """Bring the digest of an asset in line with its program, likewise."""
    program = (asset / PROGRAM).read_bytes()
    (asset / DIGEST).write_bytes(hashlib.sha256(program).digest())


def sign(folder: Path) -> None:
    """Bring the sums of a bundle in line with its files, as one who means harm would."""
    parts = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "SHA256SUMS")
    lines = [
        f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder).as_posix()}\n"
        for p in parts
    ]
    (folder / "SHA256SUMS").write_text("".join(lines))


PACKAGE: list[tuple[str, Edit]] = [
    (MODEL, damaged),
    (MODEL, message(lambda: model_class()())),
    (WEIGHTS, damaged),
    (MANIFEST, damaged),
    (MANIFEST, as_json),
]
EDITS: dict[str, list[tuple[str, Edit]]] = {
    "m.onnx": [("", damaged), ("", message(onnx.ModelProto))],
    "apart.onnx": [("", damaged), ("", message(onnx.ModelProto))],
    "dense.onnx": [("", damaged), ("", message(onnx.ModelProto))],
    "m.ort": [("", damaged), ("", words)],
    "m.mlpackage": PACKAGE,
    "sparse.mlpackage": PACKAGE,
    "m.aimodel": [
        (PROGRAM, damaged),
        (PROGRAM, damaged),
        (DIGEST, damaged),
        (METADATA, damaged),
        (METADATA, as_json),
    ],
    "m.safetensors": [("", damaged), ("", header), ("", layout)],
    "golden": [
        ("bundle.json", as_json),
        ("bundle.json", damaged),
        ("tensors.safetensors", header),
        ("palettes.safetensors", layout),
        ("SHA256SUMS", damaged),
    ],
    "device": [("outputs.json", as_json), ("outputs.json", damaged), ("raw/0.bin", damaged)],
    "recipe.toml": [("", damaged), ("", as_toml)],
    "budget.toml": [("", damaged), ("", as_toml)],
    "report.json": [("", damaged), ("", as_json)],
}
