"""A pytest plugin: a file that was converted once is copied the next time, not made again.

Tests of readers and of validation convert small models, which takes most of their time, while the
code that is mutated reads the files. The process that runs the tests first fills the store; those
that mutmut forks from it find there what they would make.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

import dkm_deploy as dkm

_STORE = Path(tempfile.mkdtemp(prefix="kept_files"))
_kept_files: dict[str, tuple[dkm.Artifact, Path]] = {}


def _kept(convert: Callable[..., dkm.Artifact]) -> Callable[..., dkm.Artifact]:
    @functools.wraps(convert)
    def kept(model: Any, inputs: Any, path: Any, **options: Any) -> dkm.Artifact:
        target = Path(path)
        usable = isinstance(model, nn.Module) and target.parent.is_dir() and not target.exists()
        if not usable:
            return convert(model, inputs, path, **options)
        key = _key(model, (inputs, options), target.name)
        if key not in _kept_files:
            artifact = convert(model, inputs, path, **options)
            folder = Path(tempfile.mkdtemp(dir=_STORE))  # another process may keep the same
            _copy(target.parent, folder, target.name)
            _kept_files[key] = artifact, folder
            return artifact
        artifact, folder = _kept_files[key]
        _copy(folder, target.parent, target.name)
        return replace(artifact, path=target)

    return kept


def _key(model: nn.Module, given: Any, name: str) -> str:
    """What a file depends on: classes and settings of all modules, tensors, inputs and options."""
    found = hashlib.sha256(f"{name} {model!r}".encode())
    for module in model.modules():
        plain = {k: v for k, v in vars(module).items() if isinstance(v, (str, int, float))}
        found.update(f"{id(type(module).forward)} {sorted(plain.items())}".encode())
    tensors = dict(model.named_parameters(remove_duplicate=False))
    for tensor in [*tensors.values(), *dict(model.named_buffers()).values()]:
        found.update(_bytes(tensor))
    for leaf in pytree.tree_leaves(given):
        found.update(_bytes(leaf) if torch.is_tensor(leaf) else repr(leaf).encode())
    found.update(str(pytree.tree_structure(given)).encode())
    return found.hexdigest()


def _bytes(tensor: torch.Tensor) -> bytes:
    about = f"{tensor.dtype} {tuple(tensor.shape)}".encode()
    return about + tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _copy(source: Path, target: Path, name: str) -> None:
    """Copy a file or folder called ``name``, and the data files beside it."""
    for path in source.glob(f"{name}*"):
        if path.is_dir():
            shutil.copytree(path, target / path.name)
        else:
            shutil.copyfile(path, target / path.name)


dkm.convert = _kept(dkm.convert)
