"""The rows of a report: each model and each file against the same outputs and limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import nn

from dkm_deploy.errors import DkmError
from dkm_deploy.export import Inputs
from dkm_deploy.palette import Palette
from dkm_deploy.runtimes import runtime_for
from dkm_deploy.targets import reader_for
from dkm_deploy.validation.checks import (
    answer_checks,
    holds_half,
    palettes_check,
    parity_check,
    size_checks,
)
from dkm_deploy.validation.limits import Limits
from dkm_deploy.validation.metrics import Errors, errors, top1_agreement
from dkm_deploy.validation.record import Model
from dkm_deploy.validation.run import Outputs, run_file
from dkm_deploy.validation.size import (
    bits_per_weight,
    deflated_bytes,
    ideal_bytes,
    tensor_bytes,
)

Metric = Callable[[NDArray[Any], NDArray[Any]], float]


@dataclass(frozen=True)
class Original:
    """The model before clustering: its outputs, and its tensors' bytes as they are and as fp16."""

    outputs: Outputs
    tensor_bytes: int
    half_bytes: int


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


def model_row(name: str, model: nn.Module, outputs: Outputs, task: Task) -> Model:
    """The row of a PyTorch model that gave ``outputs``."""
    size = tensor_bytes(model)
    ratio, half_ratio = _ratios(task.original, size)
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
        metric=_metric(outputs, task.labels, task.metric),
        agreement=_agreement(outputs, task.original),
        errors=_errors(outputs, task.reference),
        bytes_by_kind={},
        checks=(),
    )


def file_row(path: Path, task: Task) -> Model:
    """The row of a converted file. Raises DkmError if it is damaged or does not run."""
    reader = reader_for(path)
    stored, ledger = reader.read_palettes(path), reader.ledger(path)
    outputs, runtime, reason = _run(path, task.inputs)
    found: dict[str, Errors] = {}
    if outputs is not None:
        try:
            found = _errors(outputs, task.reference)
        except DkmError as error:
            reason = str(error)
    before, ran, kinds = task.original, outputs is not None, ledger.by_kind()
    weights = sum(palette.size for palette in stored.values())
    ratio, half_ratio = _ratios(before, ledger.total_bytes)
    metric = _metric(outputs, task.labels, task.metric) if found else None
    agreement = _agreement(outputs, task.original) if found else None
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
        agreement=agreement,
        errors=found,
        bytes_by_kind={str(kind): size for kind, size in kinds.items()},
        checks=(
            palettes_check(task.frozen, stored),
            parity_check(found, reason, ran, task.limits, half=holds_half(stored)),
            *answer_checks(metric, _original_metric(task), agreement, task.limits),
            *size_checks(ledger.total_bytes, before.tensor_bytes if before else None, task.limits),
        ),
    )


def _run(path: Path, inputs: Inputs) -> tuple[Outputs | None, str | None, str]:
    """Outputs, the name of the runtime, and the reason if there are no outputs."""
    try:
        runtime = runtime_for(path)
    except DkmError as error:
        return None, None, str(error)
    return run_file(runtime.load(path), inputs), runtime.name, ""


def _errors(outputs: Outputs, reference: Outputs) -> dict[str, Errors]:
    """Errors of each output, matched by name, or in order where the file has names of its own."""
    if len(outputs) != len(reference):
        raise DkmError(f"outputs are {', '.join(outputs)}; PyTorch has {', '.join(reference)}")
    names = outputs if set(outputs) == set(reference) else reference
    pairs = (
        ((name, outputs[name]) for name in names)
        if names is outputs
        else zip(reference, outputs.values(), strict=True)
    )
    return {name: errors(actual, reference[name]) for name, actual in pairs}


def _metric(outputs: Outputs | None, labels: NDArray[Any] | None, metric: Metric) -> float | None:
    if outputs is None or labels is None:
        return None
    return float(metric(next(iter(outputs.values())), labels))


def _original_metric(task: Task) -> float | None:
    return _metric(task.original.outputs, task.labels, task.metric) if task.original else None


def _agreement(outputs: Outputs | None, original: Original | None) -> float | None:
    """Top-1 agreement of the first outputs, if they are scores ``(n, classes)``."""
    if outputs is None or original is None:
        return None
    ours, theirs = next(iter(outputs.values())), next(iter(original.outputs.values()))
    if ours.shape != theirs.shape or ours.ndim != 2 or ours.shape[1] < 2:
        return None
    return top1_agreement(ours, theirs)


def _ratios(original: Original | None, size: int) -> tuple[float | None, float | None]:
    """Bytes of the original, and of its fp16 half, over ``size``; None without an original."""
    if original is None or not original.tensor_bytes:
        return None, None
    return original.tensor_bytes / size, original.half_bytes / size
