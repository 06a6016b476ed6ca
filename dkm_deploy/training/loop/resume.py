"""The file that a killed run resumes from: written whole, read without running any code."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dkm_deploy._support.atomic_files import atomic_path
from dkm_deploy.errors import DkmError
from dkm_deploy.nn_utils import random_state
from dkm_deploy.training.prepare import require_prepared

_FORMAT = "dkm_deploy.fit/1"


class HasState(Protocol):
    """An optimiser or a learning rate scheduler."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> object:
        """Take over what ``state_dict`` gave."""
        ...


@dataclass(frozen=True)
class Position:
    """Where a run stands.

    Attributes:
        epoch: the one it is in, from 0.
        batch: batches of it that are done.
        step: optimiser steps done since the start.
        loss: of the last step; NaN before the first.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss: float = float("nan")


@dataclass(frozen=True)
class RunFile:
    """Reads and writes the state of one run.

    Attributes:
        path: the file.
        setup: what must be the same for a run to go on as if never killed; see :func:`setup_of`.
        parts: whose ``state_dict`` the file holds, by name.
        generators: of the data, beside the global random states.
    """

    path: Path
    setup: Mapping[str, str]
    parts: Mapping[str, HasState]
    generators: Sequence[torch.Generator]

    def write(self, position: Position, epoch_start: random_state.Snapshot) -> None:
        """Replace the file by the state of now.

        Args:
            position: where the run stands.
            epoch_start: random states when the epoch began, to repeat its shuffling.

        Raises:
            DkmError: it cannot be written; what was there before still is.
        """
        state = {
            "format": _FORMAT,
            "setup": dict(self.setup),
            "position": asdict(position),
            "epoch_start": epoch_start,
            "now": random_state.snapshot(self.generators),
            **{name: part.state_dict() for name, part in self.parts.items()},
        }
        with atomic_path(self.path, force=True) as temporary, temporary.open("wb") as file:
            try:
                torch.save(state, file)
            except RuntimeError as error:  # of torch's, over what the system said
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise

    def read(self) -> dict[str, Any]:
        """The state in the file, checked against this run; nothing is changed.

        Raises:
            DkmError: the file is damaged, not of :func:`dkm_deploy.fit`, or of another run (with
                the first thing that differs).
        """
        state = _load(self.path)
        if not isinstance(state, dict) or state.get("format") != _FORMAT:
            raise DkmError(f"{self.path}: not a checkpoint of dkm.fit; give another path")
        difference = first_difference(state["setup"], self.setup)
        if difference:
            raise DkmError(
                f"{self.path}: a checkpoint of another run: {difference}; give the same arguments "
                "to resume it, or another path to start again"
            )
        return state

    def resume(self, state: Mapping[str, Any]) -> Position:
        """Give the model, the optimiser and the scheduler the state that :meth:`read` gave."""
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        return Position(**state["position"])


def setup_of(
    model: nn.Module,
    parts: Mapping[str, HasState],
    teacher: nn.Module | None,
    options: Mapping[str, object],
) -> dict[str, str]:
    """What makes a run this run and no other: shapes, palettes, options, starting values.

    To be called before anything is resumed.
    """
    found = {name: repr(value) for name, value in options.items()}
    for name, tensor in model.state_dict().items():
        found[f"model: {name}"] = (
            f"{tensor.dtype} {tuple(tensor.shape)} {tensor.device.type}"
            if isinstance(tensor, Tensor)
            else type(tensor).__name__
        )
    for layer in require_prepared(model):
        soft = layer.soft
        found[f"palette of {layer.name}"] = f"{soft.spec}, {soft.method}, {soft.schedule}"
    for name, part in parts.items():
        if not isinstance(part, nn.Module):
            found[name] = type(part).__name__
            found |= _leaves(name, part.state_dict())
    found["teacher"] = "None" if teacher is None else f"{_checksum(teacher):08x}"
    return found


def first_difference(theirs: Mapping[str, str], ours: Mapping[str, str]) -> str | None:
    """The first entry of a file's set-up that is not as this run's, in words."""
    for name in [*ours, *theirs]:
        there, here = theirs.get(name, "missing"), ours.get(name, "missing")
        if there != here:
            return f"{name} is {there} in it and {here} in this run"
    return None


def _leaves(name: str, value: object) -> dict[str, str]:
    """The plain values in nested dictionaries and lists of them, each under a name of its own."""
    if isinstance(value, Mapping):
        items = [(f"{name} {key}", one) for key, one in value.items()]
    elif isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        items = [(f"{name} {index}", one) for index, one in enumerate(value)]
    else:
        # A function's repr is an address, which differs from process to process.
        return {name: type(value).__name__ if callable(value) else repr(value)}
    found: dict[str, str] = {}
    for key, one in items:
        found |= _leaves(key, one)
    return found


def _checksum(model: nn.Module) -> int:
    """CRC-32 of all that a model's outputs depend on."""
    crc = 0
    for tensor in [*model.parameters(), *model.buffers()]:
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        crc = zlib.crc32(data.numpy().data, crc)
    return crc


def _load(path: Path) -> Any:
    try:
        # torch does not look at the checksums that the file has.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"bad checksum of {damaged}")
        return torch.load(path, map_location="cpu", weights_only=True)
    # A damaged pickle, or one of other objects, can raise anything.
    except Exception as error:
        raise DkmError(
            f"{path}: not a whole checkpoint of dkm.fit ({type(error).__name__}); move it away to "
            "start again"
        ) from error
