"""How much of a metric is lost, and how sure that is: paired 95 % confidence intervals.

Both models answer the same inputs, so what matters is where they differ; an interval for two
independent samples would be far too wide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dkm_deploy.errors import reason_of
from dkm_deploy.model.metric import Metric, accuracy, hits, score

_Z = 1.959963984540054  # 97.5 % point of the normal distribution
_RESAMPLES = 1000
_SEED = 0
_FEWEST = 10
_NEWCOMBE = "Newcombe 1998, method 10"
_BOOTSTRAP = f"paired percentile bootstrap, {_RESAMPLES} resamples, seed {_SEED}"


@dataclass(frozen=True)
class Loss:
    """Metric of the original minus that of a model, with its 95 % confidence interval.

    Attributes:
        value: in the metric's unit; more is worse.
        low: lower end; None if there is no interval.
        high: upper end; None if there is no interval.
        method: how the interval was made, or why there is none.
    """

    value: float
    low: float | None
    high: float | None
    method: str


def metric_loss(
    metric: Metric, original: NDArray[Any], actual: NDArray[Any], labels: NDArray[Any]
) -> Loss:
    """What ``actual`` loses against ``original``, both outputs for the same inputs.

    Top-1 accuracy with one label an input has an interval of its own, which is honest for few
    inputs and few differences too (Newcombe, Statistics in Medicine 17, 1998, 2635-2650). For any
    other metric whole inputs are resampled, the same ones for both (Efron and Tibshirani, An
    Introduction to the Bootstrap, 1993, ch. 13).

    Raises:
        DkmError: the metric cannot be computed of all inputs.
    """
    value = score(metric, original, labels) - score(metric, actual, labels)
    if metric is accuracy and labels.ndim == 1:
        low, high = _newcombe(hits(original, labels), hits(actual, labels))
        return Loss(value, 100 * low, 100 * high, _NEWCOMBE)
    if len(labels) < _FEWEST:
        return Loss(value, None, None, f"no interval: fewer than {_FEWEST} inputs")
    try:
        draws = _resample_losses(metric, original, actual, labels)
    except Exception as error:  # the user's own metric, on inputs that may lack a class
        return Loss(value, None, None, f"no interval: a resample gave {reason_of(error)}")
    if not np.isfinite(draws).all():
        return Loss(value, None, None, "no interval: the metric of a resample is not finite")
    low, high = np.quantile(draws, (0.025, 0.975))
    return Loss(value, float(low), float(high), _BOOTSTRAP)


def _resample_losses(
    metric: Metric, original: NDArray[Any], actual: NDArray[Any], labels: NDArray[Any]
) -> NDArray[np.float64]:
    """The loss on each resample of the inputs."""
    generator = np.random.default_rng(_SEED)
    draws = np.empty(_RESAMPLES)
    for i in range(_RESAMPLES):
        rows = generator.integers(len(labels), size=len(labels))
        before, after = metric(original[rows], labels[rows]), metric(actual[rows], labels[rows])
        draws[i] = float(before) - float(after)
    return draws


def _newcombe(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> tuple[float, float]:
    """Interval for the difference of two shares of the same inputs, ``before`` minus ``after``.

    Wilson's intervals of both shares, joined by the correlation phi of the pairs, whose numerator
    is brought n/2 nearer to zero if it is positive.
    """
    n = len(before)
    both, neither = int((before & after).sum()), int((~before & ~after).sum())
    lost, won = int((before & ~after).sum()), int((~before & after).sum())
    low1, high1 = _wilson(both + lost, n)
    low2, high2 = _wilson(both + won, n)
    p1, p2 = (both + lost) / n, (both + won) / n
    phi = _phi(both, lost, won, neither)
    down = _join_intervals(p1 - low1, high2 - p2, phi)
    up = _join_intervals(high1 - p1, p2 - low2, phi)
    return max(p1 - p2 - down, -1.0), min(p1 - p2 + up, 1.0)


def _wilson(count: int, n: int) -> tuple[float, float]:
    """Wilson's score interval of ``count / n``."""
    share, z2 = count / n, _Z**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * (share * (1 - share) / n + z2 / (4 * n * n)) ** 0.5
    return middle - half, middle + half


def _phi(both: int, lost: int, won: int, neither: int) -> float:
    margins = (both + lost) * (won + neither) * (both + won) * (lost + neither)
    if not margins:
        return 0.0
    above = float(both * neither - lost * won)
    if above > 0:
        above = max(above - (both + lost + won + neither) / 2, 0.0)
    return float(above / margins**0.5)


def _join_intervals(first: float, second: float, phi: float) -> float:
    return float(max(first**2 - 2 * phi * first * second + second**2, 0) ** 0.5)
