"""Measurements kept by content, so that a plan that was killed goes on where it stood."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from dkm_deploy.errors import DkmError

_FILE = "measured.jsonl"


class Cache:
    """Values by what they were measured of; in a folder, or only in memory.

    Args:
        folder: made if it is not there; each value is a line of a file in it, written as soon as
            it is measured. A line that a kill cut short is measured again.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._values: dict[str, Any] = {}
        self._path = None if folder is None else folder / _FILE
        if self._path is not None:
            self._open(self._path)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def put(self, key: str, value: Any) -> None:
        """Keep ``value``, which must be JSON, under ``key``, a digest of what was measured."""
        self._values[key] = value
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "value": value}) + "\n")

    def _open(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            written = path.read_text("utf-8") if path.exists() else ""
            if written and not written.endswith("\n"):
                with path.open("a", encoding="utf-8") as file:
                    file.write("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise DkmError(f"{path}: cannot be used as a cache: {error}") from error
        for line in written.splitlines():
            self._take(line)

    def _take(self, line: str) -> None:
        try:
            entry = json.loads(line)
            self._values[entry["key"]] = entry["value"]
        except (ValueError, KeyError, TypeError):
            return  # cut short: not measured yet


def digest(parts: Iterable[object]) -> str:
    """SHA-256 of the texts of ``parts``; functions and objects go by their names."""
    texts = [re.sub(r" at 0x[0-9a-f]+", "", repr(part)) for part in parts]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


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
