from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dkm_deploy.planning.knapsack import Choices, frontier, least_loss

_ITEM = st.tuples(st.integers(0, 30), st.integers(0, 30))
_CHOICES = st.lists(st.lists(_ITEM, min_size=1, max_size=4), min_size=1, max_size=5)


def _choices(weights):
    columns = (np.array(items, float).T for items in weights)
    return [Choices(sizes, losses) for sizes, losses in columns]


def _best(weights, budget):
    """The least loss of all combinations within the budget; None if there is none."""
    sums = [np.sum(combination, 0) for combination in product(*weights)]
    return min((loss for size, loss in sums if size <= budget), default=None)


@settings(max_examples=200, deadline=None)
@given(_CHOICES, st.integers(0, 150))
def test_against_every_combination(weights, budget):
    choices = _choices(weights)
    found, best = frontier(choices), _best(weights, budget)
    position = found.within(budget)
    assert found.exact
    if best is None:
        assert position is None
        assert least_loss(choices, budget) == -np.inf
        return
    assert found.loss[position] == best
    assert least_loss(choices, budget) <= best + 1e-9
    chosen = found.chosen(position)
    size, loss = np.sum([items[i] for items, i in zip(weights, chosen, strict=True)], 0)
    assert (size, loss) == (found.size_bytes[position], best)


@settings(max_examples=50, deadline=None)
@given(_CHOICES, st.integers(0, 150))
def test_few_states_still_fit_and_the_gap_is_proven(weights, budget):
    choices = _choices(weights)
    found, best = frontier(choices, states=4), _best(weights, budget)
    position = found.within(budget)
    if position is None:
        return
    size, loss = np.sum(
        [items[i] for items, i in zip(weights, found.chosen(position), strict=True)], 0
    )
    assert size <= budget
    assert loss == found.loss[position]
    assert least_loss(choices, budget) - 1e-9 <= best <= loss


@pytest.mark.parametrize("weights", [20, 100])
def test_large_ones_are_near_the_bound(weights):
    random = np.random.default_rng(0)
    choices = [
        Choices(size * np.arange(1.0, 10), random.random() * 4.0 ** -np.arange(1, 10))
        for size in random.integers(100, 100_000, weights)
    ]
    budget = 4.2 * sum(choice.size_bytes[0] for choice in choices)
    found = frontier(choices)
    loss = found.loss[found.within(budget)]
    assert loss <= 1.01 * least_loss(choices, budget)


def test_an_infinite_loss_is_never_chosen():
    choices = [Choices(np.array([1.0, 2.0]), np.array([np.inf, 0.5]))] * 2
    found = frontier(choices)
    assert found.size_bytes.tolist() == [4.0]
    assert found.chosen(0) == [1, 1]
