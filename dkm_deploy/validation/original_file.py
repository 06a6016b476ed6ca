"""The model before clustering as a file: what palettized files have without a PyTorch model."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from dkm_deploy.conversion.registry import (
    function_reader,
    read_palettes,
    rewriter_for,
    size_breakdown,
)
from dkm_deploy.errors import DkmError
from dkm_deploy.formats.dense_tensor import DenseReader
from dkm_deploy.formats.ledger import Kind
from dkm_deploy.model.inputs import Inputs
from dkm_deploy.model.run import Outputs
from dkm_deploy.model.steps import Steps
from dkm_deploy.runtimes import runtime_for
from dkm_deploy.runtimes.run_file import run_file
from dkm_deploy.validation.dense_weights.reference import DenseReference
from dkm_deploy.validation.report import Model
from dkm_deploy.validation.report_rows import file_row
from dkm_deploy.validation.task import Original, Task

_TENSORS: tuple[Kind, ...] = ("indices", "lut", "dense")


class CannotRunError(DkmError):
    """No runtime here runs a file."""


def original_of(path: Path, inputs: Inputs | Steps, function: str | None = None) -> Original:
    """Outputs of a dense file, and the bytes of its tensors; those of its fp16 half are unknown.

    It runs the default function of the file, or the one that is named.

    Raises:
        CannotRunError: no runtime here runs it.
        DkmError: the file is damaged, or does not run on the inputs.
    """
    kinds = size_breakdown(path).by_kind()
    return Original(_outputs(path, inputs, function), sum(kinds[kind] for kind in _TENSORS), None)


def original_row(path: Path, task: Task) -> Model:
    """The row of a dense file as the original: nothing is asked of it."""
    row = file_row(path, replace(task, model=None))
    return replace(row, name=f"original ({path.name})", path=None, checks=())


def twin_task(path: Path, original: Path, task: Task) -> Task:
    """``task`` with the outputs of the original whose weights are those that ``path`` decodes.

    There are none where the original does not run.

    Raises:
        DkmError: ``path`` was not made from ``original``, or no target can take palettes out of
            files of its kind.
    """
    with TemporaryDirectory() as folder:
        twin = Path(folder) / original.name
        try:
            rewriter_for(original).write_twin(original, read_palettes(path), twin)
        except DkmError as error:
            raise DkmError(f"{path}: it cannot be compared with the original: {error}") from error
        palettized = function_reader(path, task.function).read_palettes(path)
        dense = _dense_of(original, set(palettized), task.function)
        expected = {} if task.random else _outputs(twin, task.inputs, task.function)
        return replace(task, reference=expected, dense=dense)


def _dense_of(
    path: Path, palettized: Collection[str], function: str | None
) -> DenseReference | None:
    """The dense weights of a file but for those that are palettized in another one."""
    reader = function_reader(path, function)
    if not isinstance(reader, DenseReader):
        return None
    found = reader.read_dense(path)
    return DenseReference({t.name: t.read() for t in found if t.name not in palettized}, {})


def _outputs(path: Path, inputs: Inputs | Steps, function: str | None) -> Outputs:
    try:
        session = runtime_for(path, function).load(path)
    except DkmError as error:
        raise CannotRunError(str(error)) from error
    return run_file(session, inputs)
