"""Measurements kept by content, so that a plan that was killed goes on where it stood."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils import _pytree as pytree

from dkm_deploy._support.paths import translate_read_errors
from dkm_deploy._support.records import from_json, from_plain
from dkm_deploy.errors import DkmError, refused_by_system

_T = TypeVar("_T")

_FILE = "measured.jsonl"


@dataclass(frozen=True)
class _Entry:
    key: str
    value: Any


class Cache:
    """Values by what they were measured of; in a folder, or only in memory.

    Args:
        folder: made if it is not there; each value is a line of a file in it, written as soon as
            it is measured. What a kill cut short and what is damaged is measured again. A folder
            that cannot be written to, or no longer, ends no measurement: what is measured then is
            kept in memory alone.

    Raises:
        DkmError: ``folder`` is a file, or no name for a folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._values: dict[str, Any] = {}
        self._path = None if folder is None else folder / _FILE
        if folder is not None and self._path is not None:
            self._open(folder, self._path)

    def put(self, key: str, value: Any) -> None:
        """Keep ``value``, which must be JSON, under ``key``, a digest of what was measured."""
        self._values[key] = value
        self._append(json.dumps(asdict(_Entry(key, value))))

    def take(self, key: str, kind: type[_T]) -> _T | None:
        """The value under ``key``, of ``kind``; None if it is not there, or damaged."""
        try:
            return from_plain(self._values[key], kind)
        except (KeyError, DkmError):
            return None

    def _append(self, line: str) -> None:
        if self._path is None:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
        except OSError as error:  # hours of measuring are worth more than their cache
            told = refused_by_system(error)
            warnings.warn(f"{self._path}: nothing more is kept: {told}", stacklevel=3)
            self._path = None

    def _open(self, folder: Path, path: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError, ValueError) as error:
            raise DkmError(f"{folder}: cannot be used as a cache: it is not a folder") from error
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                told = refused_by_system(error)
                raise DkmError(f"{folder}: cannot be used as a cache: {told}") from error
            return  # the first line that is to be written tells
        if path.is_file():
            with translate_read_errors(path):
                written = path.read_bytes()
            for line in written.splitlines():
                self._read(line)
            if written and not written.endswith(b"\n"):
                self._append("")

    def _read(self, line: bytes) -> None:
        try:
            entry = from_json(line, _Entry)
        except DkmError:
            return  # cut short or damaged: not measured yet
        self._values[entry.key] = entry.value


def digest(parts: Iterable[object]) -> str:
    """SHA-256 of the texts of ``parts``; functions and objects go by their names."""
    texts = [re.sub(r" at 0x[0-9a-f]+", "", repr(part)) for part in parts]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def bytes_digest(data: bytes) -> str:
    """SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def arrays_digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Of arrays by name: their types, shapes and values."""
    return digest((n, a.dtype, a.shape, bytes_digest(a.tobytes())) for n, a in arrays.items())


def label_digests(labels: Iterable[Any]) -> list[str | None]:
    """Of the values of each batch's labels; None where a batch has none."""
    return [None if one is None else bytes_digest(np.asarray(one).tobytes()) for one in labels]


def model_digest(model: nn.Module) -> str:
    """Of a model's structure, as it prints, and of all its parameters and buffers."""
    return digest([model, *((n, tensor_digest(t)) for n, t in model.state_dict().items())])


def tensor_digest(value: Any) -> str:
    """Of tensors in nested tuples, lists and mappings, and of the texts of what else is there."""
    return digest(_content(leaf) for leaf in pytree.tree_leaves(value))


def _content(leaf: Any) -> object:
    if not torch.is_tensor(leaf):
        return leaf
    plain = leaf.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return leaf.dtype, tuple(leaf.shape), hashlib.sha256(plain.numpy().data).hexdigest()
