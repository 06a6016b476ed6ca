"""Open a ``.aimodel`` folder read-only: the program's bytes and the metadata."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dkm_deploy._support.records import from_json
from dkm_deploy.errors import DkmError, MissingFileError

PROGRAM, DIGEST, METADATA = "main.mlirb", "main.hash", "metadata.json"


@dataclass(frozen=True)
class Asset:
    """An opened asset.

    Attributes:
        path: its folder.
        program: the bytes of ``main.mlirb``, MLIR bytecode.
        metadata: what ``metadata.json`` holds.
    """

    path: Path
    program: bytes
    metadata: dict[str, Any]


def open_asset(path: Path) -> Asset:
    """Open an asset.

    The program is compared with its SHA-256 in ``main.hash`` before anything reads it.

    Raises:
        DkmError: it is no folder, a file of it is missing, the program is not the one whose
            digest is stored, or the metadata is not a JSON object.
    """
    if not path.exists():
        raise MissingFileError(f"{path}: no such file or folder")
    if not path.is_dir():
        raise DkmError(f"{path}: not a folder; a Core AI asset is a folder named .aimodel")
    program, digest = _bytes(path / PROGRAM), _bytes(path / DIGEST)
    if hashlib.sha256(program).digest() != digest:
        raise DkmError(
            f"{path}: {PROGRAM} is not the program whose SHA-256 is in {DIGEST}; "
            "the asset is damaged or was changed"
        )
    return Asset(path, program, _metadata(path / METADATA))


def _bytes(file: Path) -> bytes:
    if not file.is_file():
        raise MissingFileError(f"{file}: missing, so this is not a whole Core AI asset")
    try:
        return file.read_bytes()
    except OSError as error:
        raise DkmError(f"{file}: cannot be read: {error.strerror}") from error


def _metadata(file: Path) -> dict[str, Any]:
    content = _bytes(file)
    try:
        return from_json(content, dict[str, Any])
    except DkmError as error:
        raise DkmError(f"{file}: {error}") from error
