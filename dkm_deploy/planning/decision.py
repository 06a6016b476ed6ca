"""From bytes and losses to a recipe: weigh, measure, solve, and write the file to see."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console

from dkm_deploy._support.measurement_cache import Cache
from dkm_deploy.conversion.plan_subject import Item, PlanSubject
from dkm_deploy.palette_spec import PaletteSpec
from dkm_deploy.planning.candidates import Candidates, candidates_of
from dkm_deploy.planning.fit_budget import fit_to_budget
from dkm_deploy.planning.knapsack import Choices, Frontier, frontier, least_loss
from dkm_deploy.planning.losses import measure_losses, worth_measuring
from dkm_deploy.planning.sizes import Scales, Sizes, largest_of, predict_sizes
from dkm_deploy.recipe import Recipe
from dkm_deploy.rule import Rule

_POINTS = 1_000  # of a frontier, that a plan keeps


@dataclass(frozen=True)
class Decision:
    """What one weight becomes.

    Attributes:
        name: qualified name of the parameter, or the weight's name in a file.
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
    """Recipe for a byte budget, with the predicted and measured sizes and losses.

    Attributes:
        recipe: one rule for each weight.
        budget_bytes: the budget, in bytes.
        predicted_bytes: predicted bytes of the largest file.
        size_bytes: measured bytes of the written files, by target.
        loss: expected loss, the sum over the weights that the plan minimizes.
        least_loss: lower bound: no other choice of candidates within the budget has a smaller sum.
        decisions: the palette, bytes and loss of each weight.
        pareto: predicted ``(bytes, loss)`` of the best plans for budgets of all sizes, by
            increasing bytes.

    Example:
        >>> model, samples = nn.Linear(64, 32), torch.randn(32, 64)
        >>> plan = dkm.plan(model, "3kB", "onnx", samples, candidates=[2, 4])
        >>> [(decision.name, decision.spec.bits) for decision in plan.decisions]
        [('weight', 4)]
    """

    recipe: Recipe
    budget_bytes: int
    predicted_bytes: int
    size_bytes: Mapping[str, int]
    loss: float
    least_loss: float
    decisions: tuple[Decision, ...]
    pareto: tuple[tuple[float, float], ...]


def decide(
    subject: PlanSubject,
    budget_bytes: int,
    targets: Sequence[str],
    specs: Sequence[PaletteSpec],
    cache: Cache,
    console: Console,
) -> Plan:
    """The plan with the least expected loss whose files fit a budget.

    Args:
        subject: the model.
        budget_bytes: of each file.
        targets: that the files are for; at least one.
        specs: what a weight may become, where it fits its shape and the targets hold it.
        cache: of what was measured before.
        console: where progress is shown.

    Raises:
        DkmError: no combination fits the budget, no spec fits any weight, or the model cannot be
            converted.
    """
    possible = candidates_of(subject, specs, targets)
    scales = Scales(subject, cache)
    sizes = largest_of(predict_sizes(scales, name, possible, console) for name in targets)
    worth = worth_measuring(possible, sizes)
    losses = measure_losses(subject, worth, cache, console)
    return _solve(worth, sizes, losses, scales, targets, budget_bytes)


def _solve(
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

    settled = fit_to_budget(found, sizes.fixed, budget_bytes, lambda p: max(_files(p).values()))
    chosen = _chosen(settled.position)
    shapes = scales.subject.shapes
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
