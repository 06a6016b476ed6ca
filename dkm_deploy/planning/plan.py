"""Plan: the recipe whose file fits a budget and costs the outputs least."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import nn
from torch.utils import _pytree as pytree

from dkm_deploy.cache import Cache, model_digest
from dkm_deploy.errors import DkmError
from dkm_deploy.export import Inputs
from dkm_deploy.planning.candidates import DEFAULT, Candidates, candidates_of
from dkm_deploy.planning.knapsack import Choices, Frontier, frontier, least_loss
from dkm_deploy.planning.losses import measured, worth_measuring
from dkm_deploy.planning.settle import settle
from dkm_deploy.planning.sizes import Item, Scales, Sizes, largest, predicted
from dkm_deploy.quantities import parse_bytes
from dkm_deploy.recipe import PaletteSpec, Recipe, Rule
from dkm_deploy.training.after import AfterTraining, method_named
from dkm_deploy.training.attach import check
from dkm_deploy.training.calibration import Calibration
from dkm_deploy.training.probe import Metric, Probe
from dkm_deploy.training.step import parted

_POINTS = 1_000  # of a frontier, that a plan keeps


@dataclass(frozen=True)
class Decision:
    """What one weight becomes.

    Attributes:
        name: qualified name of the parameter.
        shape: of the weight.
        spec: its palette; None stays dense.
        size_bytes: predicted share of the file.
        loss: measured, with all other weights as they were.
    """

    name: str
    shape: tuple[int, ...]
    spec: PaletteSpec | None
    size_bytes: float
    loss: float


@dataclass(frozen=True)
class Plan:
    """A recipe and what was expected and measured of it.

    Attributes:
        recipe: one rule for each weight.
        budget_bytes: what was asked for.
        predicted_bytes: of the largest file.
        size_bytes: of the files that were written to see, by target.
        loss: the sum over the weights, what the plan minimises.
        least_loss: no other choice of candidates within the budget has a sum below it.
        decisions: weight by weight.
        pareto: predicted ``(bytes, loss)`` of the best plans for budgets of every size, by
            increasing bytes.
    """

    recipe: Recipe
    budget_bytes: int
    predicted_bytes: int
    size_bytes: Mapping[str, int]
    loss: float
    least_loss: float
    decisions: tuple[Decision, ...]
    pareto: tuple[tuple[float, float], ...]


def plan(
    model: nn.Module,
    budget: str | int,
    targets: Sequence[str] = ("coreml",),
    calibration: Calibration | None = None,
    metric: Metric | None = None,
    *,
    method: str | AfterTraining = "kmeans",
    candidates: Sequence[PaletteSpec] = DEFAULT,
    example_inputs: Inputs | None = None,
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
        cache=cache,
        console=console,
    )
    return details.recipe


def plan_details(
    model: nn.Module,
    budget: str | int,
    targets: Sequence[str] = ("coreml",),
    calibration: Calibration | None = None,
    metric: Metric | None = None,
    *,
    method: str | AfterTraining = "kmeans",
    candidates: Sequence[PaletteSpec] = DEFAULT,
    example_inputs: Inputs | None = None,
    cache: str | Path | None = None,
    console: Console | None = None,
) -> Plan:
    """What :func:`plan` finds, with the figures behind it. Takes and raises the same."""
    budget_bytes = parse_bytes(str(budget))
    if not targets:
        raise DkmError("targets is empty; name at least one, such as coreml")
    chosen = method_named(method)
    check(model, Recipe(PaletteSpec(1)))
    possible = candidates_of(model, candidates, targets)
    probe = Probe(model, calibration, metric)
    console = console or Console(stderr=True)
    store, fingerprint = Cache(None if cache is None else Path(cache)), model_digest(model)
    example = _first(probe.samples[0]) if example_inputs is None else example_inputs
    scales = Scales(model, example, store, fingerprint)
    sizes = largest(predicted(scales, name, model, possible, console) for name in targets)
    worth = worth_measuring(possible, sizes)
    losses = measured(model, probe, chosen, worth, store, fingerprint, console)
    return _decided(model, worth, sizes, losses, scales, targets, budget_bytes)


def _decided(
    model: nn.Module,
    candidates: Candidates,
    sizes: Sizes,
    losses: Mapping[Item, float],
    scales: Scales,
    targets: Sequence[str],
    budget_bytes: int,
) -> Plan:
    """Solve, write the files, and put all of it down."""
    items: list[list[Item]] = [
        [(name, None), *((name, spec) for spec in found)] for name, found in candidates.items()
    ]
    choices = [
        Choices(np.array([sizes.items[i] for i in row]), np.array([losses[i] for i in row]))
        for row in items
    ]
    found = frontier(choices)

    def _chosen(position: int) -> list[Item]:
        return [row[i] for row, i in zip(items, found.chosen(position), strict=True)]

    def _files(position: int) -> dict[str, int]:
        specs = {name: spec for name, spec in _chosen(position) if spec is not None}
        return {target: scales.weigh(target, specs).total for target in targets}

    settled = settle(found, sizes.fixed, budget_bytes, lambda p: max(_files(p).values()))
    chosen = _chosen(settled.position)
    shapes = {name: tuple(model.get_parameter(name).shape) for name in candidates}
    return Plan(
        recipe=Recipe(rules=[_rule(*item) for item in chosen]),
        budget_bytes=budget_bytes,
        predicted_bytes=round(settled.predicted_bytes),
        size_bytes=_files(settled.position),
        loss=float(found.loss[settled.position]),
        least_loss=least_loss(choices, budget_bytes - settled.fixed_bytes),
        decisions=tuple(
            Decision(name, shapes[name], spec, sizes.items[name, spec], losses[name, spec])
            for name, spec in chosen
        ),
        pareto=_pareto(found, settled.fixed_bytes),
    )


def _pareto(found: Frontier, fixed_bytes: float) -> tuple[tuple[float, float], ...]:
    """At most about a thousand states, the first and the last among them."""
    step = max(1, len(found.loss) // _POINTS)
    places = [*range(0, len(found.loss) - 1, step), len(found.loss) - 1]
    return tuple((fixed_bytes + float(found.size_bytes[i]), float(found.loss[i])) for i in places)


def _rule(name: str, spec: PaletteSpec | None) -> Rule:
    """The rule of one weight; its name is taken literally."""
    return Rule(glob.escape(name), spec=spec, skip=spec is None)


def _first(batch: Any) -> Inputs:
    """The inputs of the first sample of a batch."""
    inputs, _ = parted(batch)
    one: Inputs = pytree.tree_map(lambda t: t[:1] if torch.is_tensor(t) and t.ndim else t, inputs)
    return one
