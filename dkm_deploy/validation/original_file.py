"""The model before clustering as a file: what palettized files have without a PyTorch model."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from dkm_deploy.conversion.registry import read_palettes, reader_for, rewriter_for, size_breakdown
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


def original_of(path: Path, inputs: Inputs | Steps) -> Original:
    """Outputs of a dense file, and the bytes of its tensors; those of its fp16 half are unknown.

    Raises:
        CannotRunError: no runtime here runs it.
        DkmError: the file is damaged, or does not run on the inputs.
    """
    kinds = size_breakdown(path).by_kind()
    return Original(_outputs(path, inputs), sum(kinds[kind] for kind in _TENSORS), None)


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
        dense = _dense_of(original, set(read_palettes(path)))
        expected = {} if task.random else _outputs(twin, task.inputs)
        return replace(task, reference=expected, dense=dense)


def _dense_of(path: Path, palettized: Collection[str]) -> DenseReference | None:
    """The dense weights of a file but for those that are palettized in another one."""
    reader = reader_for(path)
    if not isinstance(reader, DenseReader):
        return None
    found = reader.read_dense(path)
    return DenseReference({t.name: t.read() for t in found if t.name not in palettized}, {})


def _outputs(path: Path, inputs: Inputs | Steps) -> Outputs:
    try:
        session = runtime_for(path).load(path)
    except DkmError as error:
        raise CannotRunError(str(error)) from error
    return run_file(session, inputs)
