from __future__ import annotations

import numpy as np
import pytest

from dkm_deploy.model.metric import accuracy
from dkm_deploy.validation.measures.confidence_interval import (
    Loss,
    _newcombe,
    _phi,
    metric_loss,
)


def _pairs(both, lost, won, neither):
    before = [True] * both + [True] * lost + [False] * won + [False] * neither
    after = [True] * both + [False] * lost + [True] * won + [False] * neither
    return np.array(before), np.array(after)


def _scores(right, labels):
    """Scores of two classes that answer right where ``right`` is true."""
    return np.eye(2)[np.where(right, labels, 1 - labels)]


@pytest.mark.parametrize("shares", [(0.9, 0.05, 0.03), (0.6, 0.1, 0.1), (0.97, 0.02, 0.005)])
def test_newcombes_interval_covers_the_true_difference(shares):
    generator, n = np.random.default_rng(1), 100
    share = np.array([*shares, 1 - sum(shares)])
    draws = generator.multinomial(n, share, size=2000)
    truth = share[1] - share[2]
    covered = [low <= truth <= high for low, high in (_newcombe(*_pairs(*d)) for d in draws)]
    assert 0.93 < np.mean(covered) <= 1


@pytest.mark.parametrize(
    ("pairs", "interval"),
    [
        ((36, 12, 2, 0), (0.0569, 0.3404)),  # phi below 0: as it is
        ((20, 12, 2, 16), (0.0562, 0.3292)),  # phi above 0: its numerator is n/2 less
        ((14, 5, 0, 22), (0.0115, 0.2265)),
        ((9, 5, 1, 3), (-0.0510, 0.4545)),
        ((10, 5, 4, 3), (-0.2213, 0.3037)),  # and is never below 0
    ],
)
def test_figures_of_method_10(pairs, interval):
    """The cells of the paper's formula, worked out by hand; the first is in its table II."""
    assert _newcombe(*_pairs(*pairs)) == pytest.approx(interval, abs=5e-5)
    both, lost, won, neither = pairs
    low, high = _newcombe(*_pairs(both, won, lost, neither))  # a gain is a loss below 0
    assert (low, high) == pytest.approx((-interval[1], -interval[0]), abs=5e-5)


def test_a_correlation_of_half_an_input_is_none():
    assert _phi(3, 2, 1, 1) == 0  # 3 x 1 - 2 x 1 is 1, less than half of 7


def test_no_difference_among_few_inputs_is_not_certainty():
    low, high = _newcombe(*_pairs(20, 0, 0, 0))
    assert low == -high
    assert high == pytest.approx(0.161, abs=1e-3)  # Wilson: 20 of 20 reaches down to 83.9 %
    assert _newcombe(*_pairs(2000, 0, 0, 0))[1] < 0.003


def test_pairs_that_agree_make_the_interval_narrow():
    paired = np.ptp(_newcombe(*_pairs(800, 5, 5, 190)))
    unrelated = np.ptp(_newcombe(*_pairs(648, 157, 157, 38)))
    assert paired < unrelated / 3


def test_accuracy_is_in_percent_and_names_its_method():
    labels = np.arange(200) % 2
    before, after = _pairs(150, 12, 2, 36)
    found = metric_loss(accuracy, _scores(before, labels), _scores(after, labels), labels)
    assert found.value == pytest.approx(5)
    assert found.low < 5 < found.high
    assert (found.low, found.high) == pytest.approx(
        tuple(100 * x for x in _newcombe(before, after))
    )
    assert found.method == "Newcombe 1998, method 10"


def test_other_metrics_are_bootstrapped_in_pairs_and_the_same_each_time():
    generator = np.random.default_rng(0)
    labels = generator.normal(size=400)
    original = labels + generator.normal(size=400)
    actual = original + 0.1 * generator.normal(size=400)

    def negative_error(output, truth):
        return -float(np.mean((output - truth) ** 2))

    found = metric_loss(negative_error, original, actual, labels)
    assert found == metric_loss(negative_error, original, actual, labels)
    assert found.low < found.value < found.high
    gaps = (actual - labels) ** 2 - (original - labels) ** 2
    expected = 2 * 1.96 * gaps.std() / 400**0.5  # of a mean of independent differences
    assert found.high - found.low == pytest.approx(expected, rel=0.15)
    assert "paired percentile bootstrap, 1000 resamples, seed 0" in found.method


def test_the_bootstrap_is_the_middle_95_percent_of_its_resamples():
    gaps = np.random.default_rng(5).normal(size=30)
    found = metric_loss(lambda y, _: float(y.mean()), gaps, np.zeros(30), np.zeros(30))
    generator = np.random.default_rng(0)
    means = [gaps[generator.integers(30, size=30)].mean() for _ in range(1000)]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, (0.025, 0.975))))


def test_the_bootstrap_covers_as_often_as_it_says():
    generator, covered = np.random.default_rng(3), 0
    for _ in range(100):
        gaps = generator.normal(0.2, 1, size=60)
        found = metric_loss(lambda y, _: float(y.mean()), gaps, np.zeros(60), np.zeros(60))
        covered += found.low <= 0.2 <= found.high
    assert 88 <= covered <= 99


def test_a_difference_of_shares_is_never_beyond_1():
    for n in range(1, 60):
        assert _newcombe(*_pairs(0, n, 0, 0))[1] <= 1
        assert _newcombe(*_pairs(0, 0, n, 0))[0] >= -1


def test_places_of_one_input_are_not_independent():
    """An interval from whole inputs, for their places are right and wrong together."""
    labels = np.tile(np.arange(40)[:, None] % 2, 9)
    original, actual = (np.eye(2)[labels] for _ in range(2))
    actual[:8] = actual[:8, :, ::-1]
    found = metric_loss(accuracy, original, actual, labels)
    assert found.value == pytest.approx(20)
    assert found.method.startswith("paired percentile bootstrap")
    assert found.high - found.low > 15  # of 360 single places it would be 8


def test_a_gain_is_below_zero():
    labels = np.arange(200) % 2
    before, after = _pairs(150, 2, 12, 36)
    found = metric_loss(accuracy, _scores(before, labels), _scores(after, labels), labels)
    assert found.value == pytest.approx(-5)
    assert found.low < -5 < found.high < 0
    other = metric_loss(lambda y, _: float(y.mean()), labels * 1.0, labels + 2.0, labels)
    assert (other.value, other.low, other.high) == pytest.approx((-2, -2, -2))


def test_where_there_can_be_no_interval_the_reason_is_given():
    def fails_on_resamples(output, labels):
        if len(np.unique(labels)) < len(labels):
            raise ValueError("one class is missing")
        return float(output.mean())

    def nan_on_resamples(output, labels):
        repeated = len(np.unique(labels)) < len(labels)
        return float("nan") if repeated else float(output.mean())

    def loss(metric, count):
        labels = np.arange(float(count))
        return metric_loss(metric, labels, labels - 2, labels)

    why = "no interval: a resample gave ValueError: one class is missing"
    assert loss(fails_on_resamples, 20) == Loss(2, None, None, why)
    why = "no interval: fewer than 10 inputs"
    assert loss(fails_on_resamples, 9) == Loss(2, None, None, why)
    why = "no interval: the metric of a resample is not finite"
    assert loss(nan_on_resamples, 20) == Loss(2, None, None, why)


def test_ten_inputs_are_enough_for_an_interval():
    labels = np.arange(10.0)
    found = metric_loss(lambda y, _: float(y.mean()), labels, labels - 2, labels)
    assert (found.low, found.high) == pytest.approx((2, 2))
