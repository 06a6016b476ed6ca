"""Plan: the recipe whose file fits a budget and costs the outputs least."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn
from torch.utils import _pytree as pytree

from dkm_deploy._support.argument_checks import function, names_of, usage
from dkm_deploy._support.byte_sizes import bytes_of
from dkm_deploy._support.measurement_cache import Cache
from dkm_deploy._support.paths import existing_path, path_of
from dkm_deploy.conversion.plan_subject import PlanSubject
from dkm_deploy.conversion.recipe_check import check
from dkm_deploy.conversion.registry import planner_for, target_named
from dkm_deploy.conversion.target import Planner
from dkm_deploy.errors import DkmError
from dkm_deploy.model.calibration import Calibration, uncut_batches
from dkm_deploy.model.inputs import Inputs, split_batch
from dkm_deploy.model.metric import Metric
from dkm_deploy.model.pt2_program import load_program
from dkm_deploy.model.spec import is_program
from dkm_deploy.nn_utils.model_check import model_of
from dkm_deploy.nn_utils.state_guard import keep_random_state
from dkm_deploy.nn_utils.weights import with_plain_parameters
from dkm_deploy.palette_spec import PaletteSpec
from dkm_deploy.planning.candidates import DEFAULT, specs_of
from dkm_deploy.planning.decision import Plan, decide
from dkm_deploy.planning.module_subject import ModuleSubject
from dkm_deploy.post_training.loss_probe import LossProbe
from dkm_deploy.post_training.methods import PostTrainingMethod, post_training_method
from dkm_deploy.recipe import Recipe


@usage('dkm.plan(model, "3.3MB", targets="coreml", calibration=data)')
@keep_random_state()
def plan(
    model: nn.Module | str | PathLike[str],
    budget: str | int,
    targets: Sequence[str] | None = None,
    calibration: Calibration | None = None,
    metric: Metric | None = None,
    *,
    method: str | PostTrainingMethod = "kmeans",
    candidates: Sequence[PaletteSpec | int] = DEFAULT,
    example_inputs: Inputs | None = None,
    dynamic_shapes: Any = None,
    cache: str | Path | None = None,
    console: Console | None = None,
) -> Plan:
    """Find the recipe with the least expected loss whose file fits a budget.

    Every weight gets a palette of its own or stays dense. The loss of one weight with one candidate
    is measured on calibration data, and the losses are added up; bytes are measured on files. The
    best sum over all combinations is found, and its file is written to check that it fits.

    Args:
        model: a plain model; it does not change. Or the path of a file for
            :func:`dkm_deploy.palettize_file`: ``.onnx``, ``.mlpackage`` (its default function),
            ``.pt2``, or a file of another target that supports this.
        budget: bytes of the file, such as "3.3MB" (10**6), "3.2MiB" (2**20) or 3_300_000; with
            several targets, of each file.
        targets: such as "coreml", "coreml:iOS17" or "onnx", with the default options of
            :func:`dkm_deploy.convert`; the default is "coreml". A file can only become one of its
            own kind.
        calibration: batches as for :func:`dkm_deploy.fit`, ``(inputs, labels)`` or the inputs
            alone; or all samples at once, a tensor or a mapping of keyword inputs. For a file, the
            mapping is by the names of its inputs.
        metric: ``metric(first output, labels)``, more is better; the loss is its decrease. Without
            it, the loss is the squared relative error of the outputs.
        method: method of :func:`dkm_deploy.palettize`. A file other than ``.pt2`` gives no
            gradients, so it can only have "kmeans".
        candidates: specs or bits that a weight may get, where they fit its shape and the targets.
            The default: 1 to 8 bits; 2 to 4 bits with 16 channels per LUT; vectors of 2 and of 4
            values with 4, 6 and 8 bits. Vectors with 8 bits take minutes for millions of weights.
        example_inputs: as for ``convert``; the default is the first calibration sample. A ``.pt2``
            file has its own.
        dynamic_shapes: as for ``convert``. A ``.pt2`` file has its own.
        cache: folder for measurements, by content (weights, calibration, palette): a plan that was
            stopped continues from it, and a plan for another budget takes little time. Functions
            are identified by their name.
        console: where progress is shown; the default is standard error.

    Returns:
        The plan. Its ``recipe`` has a rule for every weight, by the name in the model or file. A
        plan can be given wherever a recipe can.

    Raises:
        DkmError: no combination fits the budget (with the least possible bytes), there is no
            calibration data or the model does not run on it, the model is not plain, or it cannot
            be converted; the file is missing, damaged or cannot be palettized, or an argument is
            for models alone.

    Example:
        >>> model, samples = nn.Linear(64, 32), torch.randn(32, 64)
        >>> plan = dkm.plan(model, "3kB", "onnx", samples, candidates=[2, 4])
        >>> plan.decisions[0].spec.bits, plan.size_bytes["onnx"] <= 3_000
        (4, True)
        >>> frozen = dkm.palettize(model, plan)
    """
    budget_bytes, specs = bytes_of(budget), specs_of(candidates)
    function("metric", metric)
    wanted = None if targets is None else names_of(targets, "targets")
    store = Cache(None if cache is None else path_of(cache, "cache"))
    subject: PlanSubject
    path = path_of(model, "model") if isinstance(model, (str, PathLike)) else None
    if path is not None and not is_program(path):
        target = planner_for(existing_path(path))
        _check_for_file(path, target, wanted, method, example_inputs, dynamic_shapes)
        subject = target.subject(path, list(uncut_batches(calibration)), metric)
        wanted = (target.name,)
    else:
        if path is not None:
            program = load_program(path)
            model = program.model
            if example_inputs is None and dynamic_shapes is None:
                example_inputs, dynamic_shapes = program.example, program.dynamic_shapes
        wanted = ("coreml",) if wanted is None else wanted
        subject = _module_subject(
            model, wanted, calibration, metric, method, example_inputs, dynamic_shapes
        )
    return decide(subject, budget_bytes, wanted, specs, store, console or Console(stderr=True))


def _module_subject(
    model: Any,
    targets: Sequence[str],
    calibration: Calibration | None,
    metric: Metric | None,
    method: str | PostTrainingMethod,
    example_inputs: Inputs | None,
    dynamic_shapes: Any,
) -> ModuleSubject:
    """A model as the subject of a plan, once it is known that the arguments fit it."""
    chosen = post_training_method(method)
    if not targets:
        raise DkmError("targets is empty; name at least one, such as coreml")
    for name in targets:
        target_named(name)  # before anything is measured
    check(model_of(model), Recipe(PaletteSpec(1)))
    model = with_plain_parameters(model)
    probe = LossProbe(model, calibration, metric)
    example = _first_sample(probe.samples[0]) if example_inputs is None else example_inputs
    return ModuleSubject(model, probe, chosen, example, dynamic_shapes)


def _check_for_file(
    path: Path,
    target: Planner,
    targets: Sequence[str] | None,
    method: str | PostTrainingMethod,
    example_inputs: Inputs | None,
    dynamic_shapes: Any,
) -> None:
    """Raise DkmError for an argument that goes with PyTorch models alone."""
    others = [name for name in targets or () if name != target.name]
    if others:
        raise DkmError(
            f"{path}: targets: it can become {target.name} alone; {others[0]} needs the PyTorch "
            "model or its .pt2"
        )
    if post_training_method(method) != post_training_method("kmeans"):
        raise DkmError(f"{path}: method: kmeans alone, for such files give no gradients")
    for name, value in (("example_inputs", example_inputs), ("dynamic_shapes", dynamic_shapes)):
        if value is not None:
            raise DkmError(f"{path}: {name}: the file is not exported again; leave this out")


def _first_sample(batch: Any) -> Inputs:
    """The inputs of the first sample of a batch."""
    inputs, _ = split_batch(batch)
    one: Inputs = pytree.tree_map(lambda t: t[:1] if torch.is_tensor(t) and t.ndim else t, inputs)
    return one
