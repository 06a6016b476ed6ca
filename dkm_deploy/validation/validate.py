"""Validate: ask every file the same questions, and give a reason for every answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path

from torch import nn

from dkm_deploy._support.argument_checks import usage
from dkm_deploy._support.paths import existing_path, paths_of
from dkm_deploy.assignment import constant_text, not_a_weight
from dkm_deploy.conversion.registry import reader_for
from dkm_deploy.errors import ArgumentError
from dkm_deploy.formats.interface import Interface
from dkm_deploy.model.inputs import Inputs
from dkm_deploy.model.metric import Metric, accuracy
from dkm_deploy.model.palettized import palettes
from dkm_deploy.model.run import Outputs, run_model
from dkm_deploy.model.samples import sample_count
from dkm_deploy.model.steps import Steps
from dkm_deploy.nn_utils.model_check import model_of
from dkm_deploy.nn_utils.state_guard import keep_random_state
from dkm_deploy.nn_utils.weights import with_plain_parameters
from dkm_deploy.parity.repeatability import randomness
from dkm_deploy.validation.check import Required
from dkm_deploy.validation.dense_weights.reference import dense_reference
from dkm_deploy.validation.golden.bundle import Bundle, read_bundle
from dkm_deploy.validation.golden.device_outputs import read_returned
from dkm_deploy.validation.labels import Labels, decide_metric, labels_array
from dkm_deploy.validation.limits import Limits, check_names, merge_limits
from dkm_deploy.validation.measures.cost import CostOptions
from dkm_deploy.validation.measures.cost_measure import meter
from dkm_deploy.validation.measures.palette_statistics import histograms, layer, recipe_of
from dkm_deploy.validation.measures.size import half_bytes, tensor_bytes
from dkm_deploy.validation.measures.thumbnails import MOST, pictures
from dkm_deploy.validation.original_file import (
    CannotRunError,
    original_of,
    original_row,
    twin_task,
)
from dkm_deploy.validation.provenance import provenance
from dkm_deploy.validation.report import Model, Report
from dkm_deploy.validation.report_rows import file_row, model_row, returned_row
from dkm_deploy.validation.request import check_asked, original_given
from dkm_deploy.validation.required_checks import required_of, with_required
from dkm_deploy.validation.row_errors import each_row, further_row
from dkm_deploy.validation.size_budget import Budget
from dkm_deploy.validation.task import Original, Task

Files = str | PathLike[str] | Sequence[str | PathLike[str]]


@usage(
    'dkm.validate("net.onnx", reference=frozen, inputs=inputs, limits=dkm.Limits(max_bytes=10**6))'
)
@keep_random_state()
def validate(
    files: Files,
    *,
    reference: nn.Module | None = None,
    inputs: Inputs | Steps,
    original: nn.Module | str | PathLike[str] | None = None,
    labels: Labels | None = None,
    metric: Metric | None = None,
    limits: Limits | None = None,
    also: Mapping[str, nn.Module] | None = None,
    interface: Interface | None = None,
    budget: Budget | None = None,
    cost: CostOptions | None = None,
    require: bool | Collection[str] = False,
    function: str | None = None,
) -> Report:
    """Check converted files against PyTorch.

    For every file: its palettes, decoded from its bytes, are compared with the frozen ones bit for
    bit; its outputs, from a runtime, with those of ``reference``; its metric and top-1 agreement
    with those of ``original``; its bytes come from the file system. With ``cost``, load time,
    latency and memory are measured in fresh processes. Models run in eval mode and do not change.

    Args:
        files: converted files, or one.
        reference: the frozen model that was converted. Without it, ``original`` is the file that
            was palettized (:func:`dkm_deploy.palettize_file`), and each file is compared with that
            file, computed with the palettes of the palettized one.
        inputs: a tensor, a tuple of positional or a mapping of keyword inputs, with samples along
            the first dimension. Arrays that are not tensors are passed to files unchanged. For a
            model that keeps state ``dkm.Steps``: the inputs of one step after the other.
        original: the model before clustering, or a file that holds it.
        labels: class numbers from 0, shape ``(n,)``, or what ``metric`` takes: one for each input.
        metric: ``metric(first output, labels)``, more is better; it gets copies. The default is
            top-1 accuracy in percent. For a confidence interval it is called on 1000 resamples of
            the inputs. If it does not fit the labels, the check is skipped and the reason is given.
        limits: limits of the checks.
        also: further PyTorch models to show in the table, by name.
        interface: names, dtypes and shapes that an app needs, as :class:`dkm_deploy.Artifact` holds
            them. Without it, a file is checked against its own metadata.
        budget: the most bytes of each file.
        cost: options to measure load time, latency and memory; None does not measure them.
        require: checks that fail if they are skipped: True is all of them, False is none, or names
            as in ("parity", "size"). Checks in this list must also be requested.
        function: the function of the files (Core ML packages) that is run and read; None is the
            default one.

    Returns:
        A report that is true if checks passed and none failed.

    Raises:
        DkmError: a file is missing or of an unknown kind, no file can be read, or the reference or
            the original does not run on the inputs.

    Example:
        >>> frozen = dkm.load("model.safetensors", nn.Linear(8, 4))
        >>> files = ["model.onnx", "model.mlpackage"]
        >>> report = dkm.validate(files, reference=frozen, inputs=torch.randn(4, 8))
        >>> bool(report)
        True
    """
    required = required_of(require)
    paths = [_readable(file) for file in paths_of(files, "files")]
    check_asked(metric, limits, budget, cost, also, interface, function)
    before = original_given(original)
    reference = (
        None if reference is None else with_plain_parameters(model_of(reference, "reference"))
    )
    how = (metric or accuracy, limits or Limits())
    task = _task(reference, before, inputs, labels, *how, function=function)
    rows = _original_rows(before, task)
    for name, model in (also or {}).items():
        rows.append(further_row(name, partial(_further_row, name, model, task)))
    if reference is not None:
        rows.append(model_row("frozen (hard)", reference, task.reference, task))
    rows += _file_rows(paths, replace(task, budget=budget, interface=interface), cost, before)
    report = _report(task, rows, provenance(), required)
    if reference is None:
        return report
    return replace(
        report,
        dense=_dense(reference),
        recipe=recipe_of(task.frozen, reference).to_toml(),
        histograms=histograms(task.frozen, before if isinstance(before, nn.Module) else None),
    )


@usage('dkm.validate_golden("net.onnx", "golden")')
@keep_random_state()
def validate_golden(
    files: Files,
    golden: str | PathLike[str],
    *,
    metric: Metric | None = None,
    limits: Limits | None = None,
    budget: Budget | None = None,
    cost: CostOptions | None = None,
    require: bool | Collection[str] = False,
) -> Report:
    """Check converted files against a golden bundle, without the PyTorch model.

    Args:
        files: converted files, or one.
        golden: a folder from :func:`dkm_deploy.write_golden`; its checksums are verified first.
        metric: for labels that are not for top-1 accuracy; without it such labels are not used.
        limits: limits that replace those of the bundle, one by one.
        budget: the most bytes of each file.
        cost: options to measure load time, latency and memory; None does not measure them. There is
            no original model to make a dense file from.
        require: checks that fail if they are skipped: True is all of them, False is none, or names
            as in ("parity", "size"). Checks in this list must also be requested.

    Returns:
        A report as from :func:`validate`, without PyTorch models.

    Raises:
        DkmError: the bundle is missing or damaged, a file is missing or of an unknown kind, or no
            file can be read.

    Example:
        >>> bool(dkm.validate_golden(["model.onnx", "model.mlpackage"], "golden"))
        True
    """
    required = required_of(require)
    paths = [_readable(file) for file in paths_of(files, "files")]
    check_asked(metric, limits, budget, cost)
    bundle = read_bundle(existing_path(golden, "golden"))
    task = replace(_bundle_task(bundle, metric, limits or Limits()), budget=budget)
    rows = _file_rows(paths, task, cost, None)
    return _golden_report(bundle, task, rows, required)


@usage('dkm.validate_device_outputs("iphone", "golden")')
def validate_device_outputs(
    folders: Files,
    golden: str | PathLike[str],
    *,
    metric: Metric | None = None,
) -> Report:
    """Check outputs that devices computed for a golden bundle, under the limits of the bundle.

    Args:
        folders: one folder for each run of a device, or a single one; its content is described in
            :mod:`dkm_deploy.validation.golden.device_outputs`.
        golden: a folder from :func:`dkm_deploy.write_golden`; its checksums are verified first.
        metric: for labels that are not for top-1 accuracy; without it such labels are not used.

    Returns:
        A report as from :func:`validate_golden`, about outputs and answers alone. Where the bundle
        sets no limit, the limits of half precision apply.

    Raises:
        DkmError: the bundle is missing or damaged, a folder is missing, or all folders are damaged
            or belong to another bundle.

    Example:
        >>> report = dkm.validate_device_outputs("device", "golden")
        >>> bool(report), report.failed
        (True, ())
    """
    paths = [existing_path(folder) for folder in paths_of(folders, "folders")]
    check_asked(metric)
    bundle = read_bundle(existing_path(golden, "golden"))
    task = _bundle_task(bundle, metric, Limits())
    make = partial(_returned_row, golden=Path(golden), task=task)
    rows = each_row(paths, make, "parity")
    return _golden_report(bundle, task, rows, required=False)


def _file_rows(
    paths: Sequence[Path], task: Task, cost: CostOptions | None, original: nn.Module | Path | None
) -> list[Model]:
    """Rows of files; where the original's file is all there is, each against its twin of that."""
    with meter(cost, task.inputs, original) as found:
        task = replace(task, meter=found)
        if isinstance(original, Path) and task.model is None:
            make = partial(_twin_row, original=original, task=task)
            return each_row(paths, make, "palettes")
        return each_row(paths, partial(file_row, task=task), "palettes")


def _twin_row(path: Path, original: Path, task: Task) -> Model:
    return file_row(path, twin_task(path, original, task))


def _returned_row(folder: Path, golden: Path, task: Task) -> Model:
    return returned_row(folder, read_returned(folder, golden), task)


def _further_row(name: str, model: nn.Module, task: Task) -> Model:
    return model_row(name, model, run_model(model, task.inputs), task)


def _readable(file: str | PathLike[str]) -> Path:
    """A path that exists and that some target can read. Raises DkmError for another."""
    path = existing_path(file)
    reader_for(path)
    return path


def _bundle_task(bundle: Bundle, metric: Metric | None, limits: Limits) -> Task:
    wanted = merge_limits(bundle.limits, limits)
    check_names(wanted, bundle.outputs)
    usable = metric is not None or bundle.metric is None
    before = bundle.original_bytes
    return decide_metric(
        Task(
            inputs=bundle.inputs,
            reference=dict(bundle.outputs),
            original=Original(dict(bundle.original), *before)
            if bundle.original and before
            else None,
            labels=bundle.labels if usable else None,
            metric=metric or accuracy,
            limits=wanted,
            frozen=bundle.palettes,
            dense=bundle.dense,
            interface=bundle.interface,
            noise=bundle.noise,
        )
    )


def _golden_report(bundle: Bundle, task: Task, rows: Sequence[Model], required: Required) -> Report:
    came_from = {f"golden: {name}": value for name, value in bundle.provenance.items()}
    return replace(
        _report(task, rows, provenance() | came_from, required),
        recipe=bundle.recipe,
        histograms=histograms(task.frozen, None),
    )


def _report(
    task: Task, rows: Sequence[Model], found: Mapping[str, str], required: Required
) -> Report:
    """What every report holds; the dense parameters, recipe and histograms come from elsewhere."""
    named = "top-1 accuracy, %" if task.metric is accuracy else _name(task.metric)
    return Report(
        models=tuple(with_required(rows, required)),
        layers=tuple(layer(name, palette) for name, palette in task.frozen.items()),
        dense={},
        samples=sample_count(task.inputs),
        metric_name=None if task.labels is None else named,
        limits=task.limits,
        provenance=found,
        required=required,
        pictures=pictures(task.inputs, _flipped_inputs(rows)),
    )


def _flipped_inputs(rows: Sequence[Model]) -> list[int]:
    """The inputs whose flips are shown as pictures."""
    files = [row for row in rows if row.path is not None]
    return [flip.input for row in files for flip in row.flips[:MOST]]


def _name(metric: Metric) -> str:
    return str(getattr(metric, "__name__", "metric"))


def _original_rows(original: nn.Module | Path | None, task: Task) -> list[Model]:
    if original is None or task.original is None:
        return []
    if isinstance(original, Path):
        return [original_row(original, task)]
    name = f"original ({_precision(original)})"
    return [model_row(name, original, task.original.outputs, task)]


def _task(
    reference: nn.Module | None,
    original: nn.Module | Path | None,
    inputs: Inputs | Steps,
    labels: Labels | None,
    metric: Metric,
    limits: Limits,
    *,
    function: str | None,
) -> Task:
    told = labels_array(labels, sample_count(inputs))
    before, alone = None, ""
    try:
        before = None if original is None else _original(original, inputs, function)
    except CannotRunError as error:
        if reference is not None:
            raise
        alone = f"the original does not run: {error}"
    if alone:
        expected: Outputs = {}
    elif reference is not None:
        expected = run_model(reference, inputs)
    elif before is not None and isinstance(original, Path):
        expected = before.outputs  # each file brings its own
    else:
        raise ArgumentError("give reference=, or original= as the file that was palettized")
    check_names(limits, expected)
    return decide_metric(
        Task(
            inputs=inputs,
            reference=expected,
            original=before,
            labels=told,
            metric=metric,
            limits=limits,
            frozen={} if reference is None else palettes(reference),
            model=reference,
            random=alone if reference is None else randomness("the reference", reference, inputs),
            dense=None if reference is None else dense_reference(reference),
            function=function,
        )
    )


def _original(model: nn.Module | Path, inputs: Inputs | Steps, function: str | None) -> Original:
    if isinstance(model, Path):
        return original_of(existing_path(model), inputs, function)
    outputs, sizes = run_model(model, inputs), (tensor_bytes(model), half_bytes(model))
    return Original(outputs, *sizes, randomness("the original", model, inputs))


def _precision(model: nn.Module) -> str:
    """The floating-point types of a model's parameters in short: fp32, bf16, fp16+fp32."""
    found = {str(p.dtype).removeprefix("torch.") for p in model.parameters()}
    return "+".join(sorted(name.replace("bfloat", "bf").replace("float", "fp") for name in found))


def _dense(model: nn.Module) -> dict[str, str]:
    """Every parameter that is not palettized, with the reason."""
    return {
        name: not_a_weight(parameter)
        or constant_text(parameter)
        or f"shape {tuple(parameter.shape)}: left dense by the recipe"
        for name, parameter in model.named_parameters()
    }
