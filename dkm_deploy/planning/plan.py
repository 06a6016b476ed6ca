"""Plan: the recipe whose file fits a budget and costs the outputs least."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn
from torch.utils import _pytree as pytree

from dkm_deploy._support.argument_checks import function, names_of
from dkm_deploy._support.byte_sizes import bytes_of
from dkm_deploy._support.measurement_cache import Cache
from dkm_deploy._support.paths import path_of
from dkm_deploy.conversion.recipe_check import check
from dkm_deploy.conversion.registry import target_named
from dkm_deploy.errors import DkmError
from dkm_deploy.model.calibration import Calibration
from dkm_deploy.model.inputs import Inputs, split_batch
from dkm_deploy.model.metric import Metric
from dkm_deploy.nn_utils.model_check import model_of
from dkm_deploy.nn_utils.state_guard import keep_random_state
from dkm_deploy.nn_utils.weights import with_plain_parameters
from dkm_deploy.planning.candidates import DEFAULT, specs_of
from dkm_deploy.planning.decision import Plan, decide
from dkm_deploy.planning.module_subject import ModuleSubject
from dkm_deploy.post_training.loss_probe import Probe
from dkm_deploy.post_training.methods import PostTrainingMethod, method_named
from dkm_deploy.recipe import PaletteSpec, Recipe


def plan(
    model: nn.Module,
    budget: str | int,
    targets: Sequence[str] = ("coreml",),
    calibration: Calibration | None = None,
    metric: Metric | None = None,
    *,
    method: str | PostTrainingMethod = "kmeans",
    candidates: Sequence[PaletteSpec] = DEFAULT,
    example_inputs: Inputs | None = None,
    dynamic_shapes: Any = None,
    cache: str | Path | None = None,
    console: Console | None = None,
) -> Recipe:
    """The recipe with the least expected loss whose file fits a budget.

    Every weight gets a palette of its own or stays dense. What that costs the outputs is measured
    on calibration data for one weight and candidate at a time, and summed; what it costs in bytes
    is measured on files. The best sum is found over all combinations, and the file of the result
    is written to see that it fits.

    Args:
        model: a plain model; it is left as it was.
        budget: bytes of the file, such as "3.3MB" (10**6), "3.2MiB" (2**20) or 3_300_000; with
            several targets, of each file.
        targets: such as "coreml", "coreml:iOS17" or "onnx", with the default options of
            :func:`dkm_deploy.convert`.
        calibration: batches as :func:`dkm_deploy.fit` takes them, ``(inputs, labels)`` or the
            inputs alone; or all samples at once, a tensor or a mapping of keyword inputs.
        metric: ``metric(first output, labels)``, more is better; the loss is what it falls by.
            Left out, the loss is the squared relative error of the outputs.
        method: of :func:`dkm_deploy.palettize`, that makes the palettes.
        candidates: what a weight may become, where it fits its shape and the targets hold it.
            The default: 1 to 8 bits; 2 to 4 with 16 channels a LUT; vectors of 2 and of 4 values
            with 4, 6 and 8 bits. Vectors with 8 bits take minutes on millions of weights.
        example_inputs: for ``convert``; the first calibration sample if left out.
        dynamic_shapes: for ``convert``.
        cache: a folder for measurements. They are kept by content (weights, calibration, palette),
            so that a plan that was killed goes on, and another budget costs next to nothing.
            Functions count by their name.
        console: where progress is shown; standard error if left out.

    Returns:
        A recipe with a rule for every weight, by name.

    Raises:
        DkmError: no combination fits the budget (with the least possible bytes), there is no
            calibration data or the model does not run on it, the model is not plain, or it cannot
            be converted.
    """
    details = plan_details(
        model,
        budget,
        targets,
        calibration,
        metric,
        method=method,
        candidates=candidates,
        example_inputs=example_inputs,
        dynamic_shapes=dynamic_shapes,
        cache=cache,
        console=console,
    )
    return details.recipe


@keep_random_state()
def plan_details(
    model: nn.Module,
    budget: str | int,
    targets: Sequence[str] = ("coreml",),
    calibration: Calibration | None = None,
    metric: Metric | None = None,
    *,
    method: str | PostTrainingMethod = "kmeans",
    candidates: Sequence[PaletteSpec] = DEFAULT,
    example_inputs: Inputs | None = None,
    dynamic_shapes: Any = None,
    cache: str | Path | None = None,
    console: Console | None = None,
) -> Plan:
    """What :func:`plan` finds, with the figures behind it. Takes and raises the same."""
    model, budget_bytes = model_of(model), bytes_of(budget)
    targets, candidates = names_of(targets, "targets"), specs_of(candidates)
    function("metric", metric)
    if not targets:
        raise DkmError("targets is empty; name at least one, such as coreml")
    for name in targets:
        target_named(name)  # before anything is measured
    chosen = method_named(method)
    check(model, Recipe(PaletteSpec(1)))
    model = with_plain_parameters(model)
    store = Cache(None if cache is None else path_of(cache, "cache"))
    probe = Probe(model, calibration, metric)
    example = _first(probe.samples[0]) if example_inputs is None else example_inputs
    subject = ModuleSubject(model, probe, chosen, example, dynamic_shapes)
    return decide(
        subject, budget_bytes, targets, candidates, store, console or Console(stderr=True)
    )


def _first(batch: Any) -> Inputs:
    """The inputs of the first sample of a batch."""
    inputs, _ = split_batch(batch)
    one: Inputs = pytree.tree_map(lambda t: t[:1] if torch.is_tensor(t) and t.ndim else t, inputs)
    return one
