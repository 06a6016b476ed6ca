"""Convert a frozen model to a file: export once, let the target write, read back, then publish."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from dkm_deploy._support.argument_checks import truth, usage
from dkm_deploy._support.atomic_files import atomic_path, check_writable, remove
from dkm_deploy._support.paths import path_of
from dkm_deploy._support.silence import quiet
from dkm_deploy.conversion.export import export
from dkm_deploy.conversion.exported import ExportedModel
from dkm_deploy.conversion.registry import at_version, target_for
from dkm_deploy.conversion.target import (
    ApproximatingTarget,
    Float32Target,
    StatefulTarget,
    Target,
    WideningTarget,
)
from dkm_deploy.errors import DkmError
from dkm_deploy.formats.interface import Interface, InterfaceReader
from dkm_deploy.formats.ledger import Ledger
from dkm_deploy.model.inputs import Inputs
from dkm_deploy.model.samples import check_not_empty
from dkm_deploy.model.steps import Steps
from dkm_deploy.nn_utils.in_float32 import holds, model_in_float32, tensor_in_float32
from dkm_deploy.nn_utils.state_guard import keep_random_state
from dkm_deploy.palette import Palette, difference
from dkm_deploy.palette_spec import spec_of
from dkm_deploy.parity.float16_storage import stores_half
from dkm_deploy.parity.trial_run import DiffersError, OverflowNote, trial_run

_WIDENED = "bfloat16 is written as float32, which holds its values; call .half() for half the bytes"


@dataclass(frozen=True)
class Artifact:
    """A converted file; ``os.fspath`` of it is its path.

    Attributes:
        path: the file or folder.
        target: name of the target that wrote it.
        ledger: every byte of the file and of its data files.
        notes: remarks, one line each, such as a weight that could not be stored as requested.
        interface: names, dtypes and shapes that an app finds in the file. ``dkm.validate`` and
            ``dkm.write_golden`` take it, to check later files against it. None if the target does
            not read it.

    Example:
        >>> frozen = dkm.palettize(nn.Linear(8, 4), 2)
        >>> artifact = dkm.convert(frozen, torch.ones(1, 8), "new.onnx")
        >>> artifact.target, artifact.ledger.by_kind()["indices"]
        ('onnx', 8)
    """

    path: Path
    target: str
    ledger: Ledger
    notes: tuple[str, ...] = ()
    interface: Interface | None = None

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        return self.ledger.total_bytes


@usage('dkm.convert(frozen, example_inputs, "net.onnx")')
@keep_random_state()
def convert(
    frozen: nn.Module,
    example_inputs: Inputs,
    path: str | Path,
    *,
    dynamic_shapes: Any = None,
    force: bool = False,
    try_file: bool = True,
    **target_options: Any,
) -> Artifact:
    """Write a frozen model to a file; the suffix of ``path`` chooses the target.

    Before the file gets its name, the palettes are decoded from it and compared with the frozen
    ones, and the file is run on the example inputs and compared with the model. So a file that
    exists holds these weights and computes the same as PyTorch. If it cannot be run on this
    computer, or the model overflows in the number format of the file, a note in the result says so.

    Args:
        frozen: from ``dkm.freeze``, ``dkm.palettize`` or ``dkm.load``; it does not change. It is
            written as it is in eval mode.
        example_inputs: a tensor, a tuple of positional or a mapping of keyword inputs. They fix the
            shapes, except for the dimensions in ``dynamic_shapes``.
        path: ``.onnx``, ``.ort`` or ``.mlpackage``, or the suffix of another installed target.
        dynamic_shapes: as for ``torch.export.export``.
        force: replace what is at ``path``.
        try_file: whether to run the file.
        **target_options: options such as ``opset=18`` or ``minimum_deployment_target="iOS17"``.

    Returns:
        The path of the file, its bytes, and notes.

    Raises:
        DkmError: the target has no such option or cannot hold a palette or a state, the model
            cannot be exported or converted (with the reason), the outputs of the file differ by
            more than rounding, or ``path`` exists and ``force`` is not set. Then nothing is
            written.

    Example:
        >>> frozen = dkm.palettize(nn.Linear(8, 4), 2)
        >>> artifact = dkm.convert(frozen, torch.ones(1, 8), "new.onnx", opset=21)
        >>> artifact.path.name
        'new.onnx'
    """
    path = path_of(path)
    truth("try_file", try_file)
    target = target_for(path)
    _check_options(target, target_options)
    check_writable(path, force=force)
    narrowed = _float64_notes(target, frozen)
    exported = export(
        model_in_float32(frozen, torch.float64) if narrowed else frozen,
        _inputs_in_float32(example_inputs) if narrowed else example_inputs,
        dynamic_shapes=dynamic_shapes,
    )
    check_not_empty(example_inputs)
    held = at_version(target, target_options)
    _check_palettes(held, exported)
    _check_states(held, exported)
    replaced = _companions(target, path)
    with atomic_path(path, force=force) as temporary:
        with quiet():
            notes = list(target.write(exported, temporary, **target_options) or ())
        stored = check_written(target, exported.palettes, temporary)
        meant = (
            target.approximates(target_options) if isinstance(target, ApproximatingTarget) else None
        )
        if try_file:
            half = stores_half(temporary, target, stored)
            tried = partial(_try_file, temporary, path, frozen, exported.inputs, half, meant)
            trial = tried()
            if trial.is_wrong and isinstance(target, WideningTarget):
                with quiet():
                    wider = target.write_wider(exported, temporary, **target_options)
                if wider is not None:
                    notes = list(wider)
                    check_written(target, exported.palettes, temporary)
                    trial = tried()
            if trial.error is not None:
                raise trial.error
            notes += trial.notes
    ledger = target.ledger(path)
    for file in replaced.difference(ledger.companions):
        remove(file)
    widened = (_WIDENED,) if holds(frozen, torch.bfloat16) else ()
    told = (*widened, *narrowed, *exported.notes, *notes)
    return Artifact(path, target.name, ledger, told, _interface(target, path))


def _float64_notes(target: Target, frozen: nn.Module) -> tuple[str, ...]:
    """A note if a model is of float64 and the target lacks that."""
    if isinstance(target, Float32Target) and holds(frozen, torch.float64):
        return (target.lacks_float64,)
    return ()


def _inputs_in_float32(inputs: Inputs) -> Inputs:
    narrow = partial(tensor_in_float32, dtype=torch.float64)
    found: Inputs = pytree.tree_map_only(Tensor, narrow, inputs)
    return found


def _interface(target: Target, path: Path) -> Interface | None:
    """What a file that was just written is to offer an app."""
    if not isinstance(target, InterfaceReader):
        return None
    found, asked = target.read_interface(path)
    return asked or found


@dataclass(frozen=True)
class _Trial:
    """What came of running a file: notes, whether it is wrong, and the error if that is refused."""

    notes: tuple[str, ...]
    is_wrong: bool = False
    error: DkmError | None = None


def _try_file(
    temporary: Path,
    path: Path,
    frozen: nn.Module,
    inputs: Inputs | Steps,
    half_weights: bool,
    meant: str | None,
) -> _Trial:
    try:
        note = trial_run(temporary, frozen, inputs, half_weights=half_weights)
    except DiffersError as error:
        if meant:
            return _Trial((f"{meant}: {error}",))
        told = DkmError(
            f"{path}: the outputs of the file are not those of the model: {error}; try_file=False "
            "(--no-try) writes it anyway"
        )
        told.__cause__ = error
        return _Trial((), True, told)
    if not note:
        return _Trial(())
    return _Trial((note.replace(str(temporary), str(path)),), isinstance(note, OverflowNote))


def _companions(target: Target, path: Path) -> set[Path]:
    """Files that an older ``path`` keeps data in, and no other file, going by their names."""
    try:
        files = target.ledger(path).companions if path.exists() else ()
    except DkmError:  # not a file of this target; what is beside it is not ours
        files = ()
    return {file for file in files if file.name.startswith(f"{path.name}.")}


def _check_options(target: Target, options: dict[str, Any]) -> None:
    parameters = inspect.signature(target.write).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    for name in options:
        if name not in known:
            raise DkmError(
                f"target {target.name} has no option {name!r}; it has {', '.join(known) or 'none'}"
            )


def _check_palettes(target: Target, exported: ExportedModel) -> None:
    for name, palette in exported.palettes.items():
        refusal = target.refuse(spec_of(palette), palette.shape)
        if refusal:
            raise DkmError(f"{name}: target {target.name} cannot hold it: {refusal}")


def _check_states(target: Target, exported: ExportedModel) -> None:
    for name, start in exported.states.items():
        if isinstance(target, StatefulTarget):
            refusal = target.refuse_state(start)
        else:
            refusal = "its files keep no state between runs"
        if refusal:
            raise DkmError(
                f"{name}: forward writes to this buffer, and target {target.name} cannot hold it: "
                f"{refusal}; make it an input and an output of forward"
            )


def check_written(
    target: Target, palettes: Mapping[str, Palette], path: Path
) -> Mapping[str, Palette]:
    """The file is the witness: compare what its bytes decode to, not what was meant.

    Returns:
        The palettes of the file.

    Raises:
        RuntimeError: the file at ``path`` holds other palettes; the target is at fault.
    """
    stored = target.read_palettes(path)
    for name, palette in palettes.items():
        wrong = difference(palette, stored[name]) if name in stored else "not in the file"
        if wrong:
            raise RuntimeError(f"{name}: target {target.name} wrote a wrong file: {wrong}")
    return stored
