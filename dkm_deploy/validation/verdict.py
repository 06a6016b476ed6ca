"""Validate: ask every file the same questions, and give a reason for every answer."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from dkm_deploy.errors import DkmError
from dkm_deploy.export import Inputs
from dkm_deploy.palette import Palette
from dkm_deploy.recipe import not_a_weight
from dkm_deploy.runtimes import runtime_for
from dkm_deploy.targets import existing, reader_for
from dkm_deploy.training.freeze import palettes
from dkm_deploy.validation.checks import (
    answer_checks,
    holds_half,
    palettes_check,
    parity_check,
    size_checks,
)
from dkm_deploy.validation.limits import Limits, check_names
from dkm_deploy.validation.metrics import Errors, accuracy, errors, top1_agreement
from dkm_deploy.validation.record import Layer, Model, Report
from dkm_deploy.validation.run import Outputs, run_file, run_model, sample_count
from dkm_deploy.validation.size import bits_per_weight, tensor_bytes

Metric = Callable[[NDArray[Any], NDArray[Any]], float]

_PACKAGES = ("dkm-deploy", "torch", "numpy", "onnx", "onnxruntime", "coremltools")


@dataclass(frozen=True)
class _Task:
    """What every row is measured against."""

    inputs: Inputs
    reference: Outputs
    original: Outputs | None
    original_bytes: int | None
    original_metric: float | None
    labels: NDArray[Any] | None
    metric: Metric
    limits: Limits
    frozen: Mapping[str, Palette]


def validate(
    files: Sequence[str | PathLike[str]],
    *,
    reference: nn.Module,
    inputs: Inputs,
    original: nn.Module | None = None,
    labels: Tensor | NDArray[Any] | None = None,
    metric: Metric | None = None,
    limits: Limits | None = None,
    also: Mapping[str, nn.Module] | None = None,
) -> Report:
    """Weigh converted files against PyTorch.

    For every file: its palettes, decoded from its bytes, against the frozen ones bit for bit; its
    outputs, from a runtime, against those of ``reference``; its metric and top-1 agreement
    against ``original``; its bytes, from the file system.

    Args:
        files: converted files.
        reference: the frozen model they were converted from.
        inputs: a tensor, a tuple of positional or a mapping of keyword inputs, samples along the
            first dimension.
        original: the model before clustering.
        labels: integer labels ``(n,)``, or what ``metric`` takes.
        metric: ``metric(first output, labels)``, more is better; top-1 accuracy in percent if
            left out.
        limits: what counts as passed.
        also: further PyTorch models to show in the table, by name.

    Returns:
        A report that is true if no limit was missed.

    Raises:
        DkmError: a file is missing or damaged, or a PyTorch model does not run on the inputs.
    """
    paths = [existing(Path(file)) for file in files]
    task = _task(reference, original, inputs, labels, metric or accuracy, limits or Limits())
    rows = []
    if original and task.original:
        name = f"original ({_precision(original)})"
        rows.append(_model_row(name, original, task.original, task))
    for name, model in (also or {}).items():
        rows.append(_model_row(name, model, run_model(model, inputs), task))
    rows.append(_model_row("frozen (hard)", reference, task.reference, task))
    rows += [_file_row(path, task) for path in paths]
    named = getattr(metric, "__name__", "metric") if metric else "top-1 accuracy, %"
    return Report(
        models=tuple(rows),
        layers=tuple(_layer(name, palette) for name, palette in task.frozen.items()),
        dense=_dense(reference),
        samples=sample_count(inputs),
        metric_name=None if labels is None else named,
        limits=task.limits,
        provenance=_provenance(),
    )


def _task(
    reference: nn.Module,
    original: nn.Module | None,
    inputs: Inputs,
    labels: Tensor | NDArray[Any] | None,
    metric: Metric,
    limits: Limits,
) -> _Task:
    labels = labels.cpu().numpy() if isinstance(labels, Tensor) else labels
    if labels is not None and len(labels) != sample_count(inputs):
        raise DkmError(f"{len(labels)} labels for {sample_count(inputs)} inputs")
    outputs, expected = (
        run_model(original, inputs) if original else None,
        run_model(reference, inputs),
    )
    check_names(limits, expected)
    return _Task(
        inputs=inputs,
        reference=expected,
        original=outputs,
        original_bytes=tensor_bytes(original) if original else None,
        original_metric=_metric(outputs, labels, metric) if outputs else None,
        labels=labels,
        metric=metric,
        limits=limits,
        frozen=palettes(reference),
    )


def _model_row(name: str, model: nn.Module, outputs: Outputs, task: _Task) -> Model:
    size = tensor_bytes(model)
    return Model(
        name=name,
        path=None,
        runtime=f"PyTorch {version('torch')}",
        size_bytes=size,
        size_ratio=_size_ratio(task, size),
        bits_per_weight=bits_per_weight(model),
        metric=_metric(outputs, task.labels, task.metric),
        agreement=_agreement(outputs, task.original),
        errors=_errors(outputs, task.reference),
        bytes_by_kind={},
        checks=(),
    )


def _file_row(path: Path, task: _Task) -> Model:
    reader = reader_for(path)
    stored, ledger = reader.read_palettes(path), reader.ledger(path)
    outputs, runtime, reason = _run(path, task.inputs)
    found: dict[str, Errors] = {}
    if outputs is not None:
        try:
            found = _errors(outputs, task.reference)
        except DkmError as error:
            reason = str(error)
    ran, kinds = outputs is not None, ledger.by_kind()
    weights = sum(palette.size for palette in stored.values())
    metric = _metric(outputs, task.labels, task.metric) if found else None
    agreement = _agreement(outputs, task.original) if found else None
    return Model(
        name=path.name,
        path=str(path),
        runtime=runtime,
        size_bytes=ledger.total_bytes,
        size_ratio=_size_ratio(task, ledger.total_bytes),
        bits_per_weight=8 * (kinds["indices"] + kinds["lut"]) / weights if weights else None,
        metric=metric,
        agreement=agreement,
        errors=found,
        bytes_by_kind={str(kind): size for kind, size in kinds.items()},
        checks=(
            palettes_check(task.frozen, stored),
            parity_check(found, reason, ran, task.limits, half=holds_half(stored)),
            *answer_checks(metric, task.original_metric, agreement, task.limits),
            *size_checks(ledger.total_bytes, task.original_bytes, task.limits),
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


def _agreement(outputs: Outputs | None, original: Outputs | None) -> float | None:
    """Top-1 agreement of the first outputs, if they are scores ``(n, classes)``."""
    if outputs is None or original is None:
        return None
    ours, theirs = next(iter(outputs.values())), next(iter(original.values()))
    if ours.shape != theirs.shape or ours.ndim != 2 or ours.shape[1] < 2:
        return None
    return top1_agreement(ours, theirs)


def _precision(model: nn.Module) -> str:
    """The floating-point types of a model's parameters in short: fp32, bf16, fp16+fp32."""
    found = {str(p.dtype).removeprefix("torch.") for p in model.parameters()}
    return "+".join(sorted(name.replace("bfloat", "bf").replace("float", "fp") for name in found))


def _size_ratio(task: _Task, size: int) -> float | None:
    return task.original_bytes / size if task.original_bytes else None


def _layer(name: str, palette: Palette) -> Layer:
    counts = np.bincount(palette.indices.ravel(), minlength=1 << palette.bits)
    shares = counts[counts > 0] / counts.sum()
    return Layer(
        name=name,
        shape=palette.shape,
        bits=palette.bits,
        cluster_dim=palette.cluster_dim,
        groups=int(np.prod(palette.groups)),
        bits_per_weight=palette.bits_per_weight,
        used_entries=int(np.count_nonzero(counts)),
        entropy_bits=float(-(shares * np.log2(shares)).sum()) + 0.0,
    )


def _dense(model: nn.Module) -> dict[str, str]:
    """Every parameter that is not palettized, with the reason."""
    return {
        name: not_a_weight(parameter) or f"shape {tuple(parameter.shape)}: left dense by the recipe"
        for name, parameter in model.named_parameters()
    }


def _provenance() -> dict[str, str]:
    found = {"python": platform.python_version(), "machine": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
