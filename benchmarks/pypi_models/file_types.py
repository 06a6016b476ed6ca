"""magika: which type a file has, by its first and last bytes."""

from __future__ import annotations

import json
import sysconfig
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.pypi_models.case import Array, Case, same_top_1, top_1

_FILES, _OF_A_KIND = 200, 8


def file_types(package: Path, others: Path) -> Iterator[Case]:
    """The model on files of Python's library and of the unpacked wheels in ``others``."""
    folder = package / "magika" / "models" / "standard_v3_3"
    config = json.loads((folder / "config.min.json").read_text())
    files = _files([others, Path(sysconfig.get_path("stdlib"))])
    rows = np.stack([_features(file.read_bytes(), config) for file in files])
    yield Case(
        f"magika {folder.name}",
        folder / "model.onnx",
        {"bytes": torch.from_numpy(rows)},
        top_1,
        same_top_1,
        f"{len(rows)} files; same type",
    )


def _files(folders: list[Path]) -> list[Path]:
    """Files with 64 bytes or more, a few of each suffix, in the order of their names."""
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for folder in folders:
        for path in sorted(folder.rglob("*.*")):
            kind = found[path.suffix]
            if len(kind) < _OF_A_KIND and path.is_file() and path.stat().st_size >= 64:
                kind.append(path)
    return [path for kind in found.values() for path in kind][:_FILES]


def _features(content: bytes, config: dict[str, int]) -> Array:
    """The model's input, as ``Magika._extract_features_from_seekable`` makes it."""
    block, pad = config["block_size"], config["padding_token"]
    first, last = content[:block].lstrip(), content[-block:].rstrip()
    first, last = first[: config["beg_size"]], last[-config["end_size"] :]
    row = np.full(config["beg_size"] + config["end_size"], pad, np.int32)
    row[: len(first)] = np.frombuffer(first, np.uint8)
    row[len(row) - len(last) :] = np.frombuffer(last, np.uint8)
    return row
