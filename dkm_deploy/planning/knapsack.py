"""The multiple-choice knapsack: one choice for each weight, the least loss within a budget.

The undominated sums of (bytes, loss) are carried from weight to weight (Nemhauser and Ullmann
1969): exact as long as they are few, and the whole frontier of budgets comes at once. Where they
grow too many, those nearest to an even grid of bytes stay; :func:`least_loss` then proves how far
from the optimum a choice can be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]

_STATES = 1 << 15
_HALVINGS = 100


@dataclass(frozen=True)
class Choices:
    """What one weight may become; at least one choice has a finite loss.

    Attributes:
        size_bytes: of each choice, ``(n,)``.
        loss: of each choice, ``(n,)``; infinity is never chosen.
    """

    size_bytes: Floats
    loss: Floats


@dataclass(frozen=True)
class Frontier:
    """Sums of one choice for each weight that no other sum beats in both bytes and loss.

    Attributes:
        size_bytes: increasing, ``(s,)``.
        loss: decreasing, ``(s,)``.
        exact: whether nothing was left out.
        origins: for each weight, the state before it and the choice made, both ``(states,)``.
    """

    size_bytes: Floats
    loss: Floats
    exact: bool
    origins: Sequence[tuple[Integers, Integers]]

    def within(self, budget_bytes: float) -> int | None:
        """The state with the least loss of those within the budget; None if there is none."""
        position = int(np.searchsorted(self.size_bytes, budget_bytes, side="right")) - 1
        return position if position >= 0 else None

    def chosen(self, position: int) -> list[int]:
        """The choice for each weight in a state."""
        choices = []
        for parents, items in reversed(self.origins):
            choices.append(int(items[position]))
            position = int(parents[position])
        return choices[::-1]


def frontier(choices: Sequence[Choices], states: int = _STATES) -> Frontier:
    """The frontier of all combinations.

    Args:
        choices: of each weight.
        states: kept from weight to weight, at most.
    """
    sizes, losses, exact = np.zeros(1), np.zeros(1), True
    origins = []
    for choice in choices:
        all_sizes = (sizes[:, None] + choice.size_bytes).ravel()
        all_losses = (losses[:, None] + choice.loss).ravel()
        kept = _undominated_places(all_sizes, all_losses)
        if len(kept) > states:
            kept, exact = kept[_spread(all_sizes[kept], states)], False
        sizes, losses = all_sizes[kept], all_losses[kept]
        origins.append(np.divmod(kept, len(choice.loss)))
    return Frontier(sizes, losses, exact, origins)


def least_loss(choices: Sequence[Choices], budget_bytes: float) -> float:
    """A loss that no combination within the budget can be below, by Lagrange multipliers.

    ``max over m >= 0 of sum over weights of min(loss + m * bytes) - m * budget``: every m gives a
    bound, and the best one is where the bytes chosen cross the budget. Minus infinity where the
    budget is below the least bytes.
    """
    if sum(float(choice.size_bytes.min()) for choice in choices) > budget_bytes:
        return -np.inf
    finite = [float(c.loss[np.isfinite(c.loss)].max() - c.loss.min()) for c in choices]
    best, _ = _relaxed_bound(choices, 0.0, budget_bytes)
    low, high = 1e-18, max(sum(finite), 1e-300)
    for _ in range(_HALVINGS):
        price = float(np.sqrt(low) * np.sqrt(high))
        bound, size = _relaxed_bound(choices, price, budget_bytes)
        best = max(best, bound)
        low, high = (price, high) if size > budget_bytes else (low, price)
    return best


def _relaxed_bound(choices: Sequence[Choices], price: float, budget: float) -> tuple[float, float]:
    """The bound at a price a byte, and the bytes chosen at it."""
    bound, size = -price * budget, 0.0
    for choice in choices:
        costs = choice.loss + price * choice.size_bytes
        best = int(costs.argmin())
        bound, size = bound + float(costs[best]), size + float(choice.size_bytes[best])
    return bound, size


def _undominated_places(sizes: Floats, losses: Floats) -> Integers:
    """Places of the sums that none beats, by increasing bytes."""
    order = np.lexsort((losses, sizes))
    ordered = losses[order]
    before = np.concatenate([[np.inf], np.minimum.accumulate(ordered)[:-1]])
    return order[ordered < before]


def _spread(sizes: Floats, count: int) -> Integers:
    """At most ``count`` places: for each step of an even grid the last that is not above it."""
    grid = np.linspace(sizes[0], sizes[-1], count)
    return np.unique(np.searchsorted(sizes, grid, side="right") - 1)
