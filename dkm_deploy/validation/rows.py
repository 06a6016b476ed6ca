"""The rows of a report: each model and each file against the same outputs and limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import nn

from dkm_deploy.errors import DkmError, first_line
from dkm_deploy.export import Inputs
from dkm_deploy.palette import Palette
from dkm_deploy.runtimes import runtime_for
from dkm_deploy.targets import reader_for
from dkm_deploy.validation.answers import Answers, compare_answers
from dkm_deploy.validation.checks import (
    answer_checks,
    holds_half,
    palettes_check,
    parity_check,
    size_checks,
)
from dkm_deploy.validation.interval import Loss, Metric, metric_loss
from dkm_deploy.validation.limits import Limits, limits_of
from dkm_deploy.validation.locate import Divergence, locate, told
from dkm_deploy.validation.metrics import Errors, errors
from dkm_deploy.validation.record import Check, Model
from dkm_deploy.validation.run import Outputs, run_file
from dkm_deploy.validation.size import (
    bits_per_weight,
    deflated_bytes,
    ideal_bytes,
    tensor_bytes,
)
from dkm_deploy.validation.swapped import swapped


@dataclass(frozen=True)
class Original:
    """The model before clustering: outputs, bytes of its tensors, and as fp16 where known."""

    outputs: Outputs
    tensor_bytes: int
    half_bytes: int | None


@dataclass(frozen=True)
class Task:
    """What every row is measured against."""

    inputs: Inputs
    reference: Outputs
    original: Original | None
    labels: NDArray[Any] | None
    metric: Metric
    limits: Limits
    frozen: Mapping[str, Palette]
    model: nn.Module | None
    """The reference itself, where it is at hand."""


def model_row(name: str, model: nn.Module, outputs: Outputs, task: Task) -> Model:
    """The row of a PyTorch model that gave ``outputs``."""
    size = tensor_bytes(model)
    ratio, half_ratio = _ratios(task.original, size)
    answers = _answers(outputs, task)
    return Model(
        name=name,
        path=None,
        runtime=f"PyTorch {version('torch')}",
        size_bytes=size,
        size_ratio=ratio,
        half_ratio=half_ratio,
        deflated_bytes=None,
        ideal_bytes=None,
        bits_per_weight=bits_per_weight(model),
        metric=_metric(outputs, task),
        metric_loss=_loss(outputs, task),
        agreement=answers.agreement,
        top5_overlap=answers.top5_overlap,
        flip_count=answers.flip_count,
        flips=answers.flips,
        errors=_errors(_matched(outputs, task.reference), task.reference),
        divergence=None,
        bytes_by_kind={},
        checks=(),
    )


def file_row(path: Path, task: Task) -> Model:
    """The row of a converted file. Raises DkmError if it is damaged or does not run."""
    reader = reader_for(path)
    stored, ledger = reader.read_palettes(path), reader.ledger(path)
    outputs, runtime, reason = _run(path, task.inputs)
    found: dict[str, Errors] = {}
    ran = outputs is not None
    if outputs is not None:
        try:
            outputs = _matched(outputs, task.reference)
            found = _errors(outputs, task.reference)
        except DkmError as error:
            reason = str(error)
    before, kinds = task.original, ledger.by_kind()
    weights = sum(palette.size for palette in stored.values())
    ratio, half_ratio = _ratios(before, ledger.total_bytes)
    parity = parity_check(found, reason, ran, task.limits, half=holds_half(stored))
    parity, divergence = _located(parity, path, outputs, task, half=holds_half(stored))
    usable = outputs if found else None
    metric, loss, answers = _metric(usable, task), _loss(usable, task), _answers(usable, task)
    return Model(
        name=path.name,
        path=str(path),
        runtime=runtime,
        size_bytes=ledger.total_bytes,
        size_ratio=ratio,
        half_ratio=half_ratio,
        deflated_bytes=deflated_bytes(ledger),
        ideal_bytes=ideal_bytes(ledger, stored, task.frozen),
        bits_per_weight=8 * (kinds["indices"] + kinds["lut"]) / weights if weights else None,
        metric=metric,
        metric_loss=loss,
        agreement=answers.agreement,
        top5_overlap=answers.top5_overlap,
        flip_count=answers.flip_count,
        flips=answers.flips,
        errors=found,
        divergence=divergence,
        bytes_by_kind={str(kind): size for kind, size in kinds.items()},
        checks=(
            palettes_check(task.frozen, stored, ledger),
            parity,
            *answer_checks(metric, loss, answers.agreement, task.limits),
            *size_checks(ledger, before.tensor_bytes if before else None, task.limits),
        ),
    )


def _located(
    parity: Check, path: Path, outputs: Outputs | None, task: Task, *, half: bool
) -> tuple[Check, Divergence | None]:
    """The parity check with where a file first goes wrong, if it does and that can be found."""
    if parity.status != "missed" or outputs is None:
        return parity, None
    exchanged = swapped(outputs, task.reference, task.limits, half=half)
    if exchanged:
        return replace(parity, reason=f"{parity.reason}; {exchanged}"), None
    if task.model is None:
        return parity, None
    name = next(iter(task.reference))
    limit = limits_of(name, task.limits, half=half).max_relative_error
    try:
        found = locate(path, task.model, task.inputs, (outputs, task.reference), limit or 0.0)
    except DkmError as error:
        return replace(parity, reason=f"{parity.reason}; not located: {error}"), None
    return replace(parity, reason=f"{parity.reason}; {told(found)}"), found


def _run(path: Path, inputs: Inputs) -> tuple[Outputs | None, str | None, str]:
    """Outputs, the name of the runtime, and the reason if there are no outputs."""
    try:
        runtime = runtime_for(path)
    except DkmError as error:
        return None, None, str(error)
    return run_file(runtime.load(path), inputs), runtime.name, ""


def _errors(outputs: Outputs, reference: Outputs) -> dict[str, Errors]:
    return {name: errors(outputs[name], expected) for name, expected in reference.items()}


def _matched(outputs: Outputs, reference: Outputs) -> Outputs:
    """Outputs by the reference's names and in its order, whatever the file calls them.

    They are matched by name, or in order where the file has names of its own.
    """
    if len(outputs) != len(reference):
        raise DkmError(f"outputs are {', '.join(outputs)}; PyTorch has {', '.join(reference)}")
    if set(outputs) == set(reference):
        return {name: outputs[name] for name in reference}
    return dict(zip(reference, outputs.values(), strict=True))


def _metric(outputs: Outputs | None, task: Task) -> float | None:
    if outputs is None or task.labels is None:
        return None
    with _users_own():
        return float(task.metric(_first(outputs), task.labels))


def _loss(outputs: Outputs | None, task: Task) -> Loss | None:
    if outputs is None or task.labels is None or task.original is None:
        return None
    with _users_own():
        return metric_loss(task.metric, _first(task.original.outputs), _first(outputs), task.labels)


@contextmanager
def _users_own() -> Iterator[None]:
    """Any error of the user's own metric as a DkmError."""
    try:
        yield
    except Exception as error:
        raise DkmError(f"the metric cannot be computed: {first_line(error)}") from error


def _answers(outputs: Outputs | None, task: Task) -> Answers:
    if outputs is None or task.original is None:
        return Answers()
    return compare_answers(_first(outputs), _first(task.original.outputs), task.labels)


def _first(outputs: Outputs) -> NDArray[Any]:
    return next(iter(outputs.values()))


def _ratios(original: Original | None, size: int) -> tuple[float | None, float | None]:
    """Bytes of the original, and of its fp16 half, over ``size``; None without an original."""
    if original is None or not original.tensor_bytes:
        return None, None
    half = original.half_bytes
    return original.tensor_bytes / size, None if half is None else half / size
