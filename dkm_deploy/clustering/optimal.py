"""Exact one-dimensional k-means of a sorted table, by dynamic programming.

Optimal clusters of sorted values are runs (Wang and Song 2011, Ckmeans.1d.dp). With ``best[j]``
the least squared error of the first j entries in so many clusters, one more cluster gives
``min_i best[i] + error(i, j)``. The i that is best for j never decreases with j, so each such row
is found by divide and conquer in ``O(n log n)``, here one level of all subproblems at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]


@dataclass(frozen=True)
class Table:
    """Prefix sums over n sorted entries, each ``(n + 1,)`` and starting at 0.

    Attributes:
        count: of values, strictly increasing.
        total: of values. They should be near 0, for the error is a difference of squares.
        square: of squared values.
    """

    count: Floats
    total: Floats
    square: Floats

    def error(self, start: Integers, stop: Integers) -> Floats:
        """Squared error of the runs ``[start, stop)`` about their means; 0 for empty runs."""
        count = np.maximum(self.count[stop] - self.count[start], 1)
        total = self.total[stop] - self.total[start]
        return np.maximum(self.square[stop] - self.square[start] - total * total / count, 0)


def optimal_runs(table: Table, clusters: int) -> Integers:
    """Bounds of the runs that have the least squared error, at most ``clusters`` of them.

    Returns:
        Increasing positions in 0..n, the first 0 and the last n.
    """
    n = len(table.count) - 1
    best = table.error(np.zeros(n + 1, np.intp), np.arange(n + 1))
    origins = []
    for _ in range(min(clusters, n) - 1):
        best, origin = _one_more(table, best)
        origins.append(origin)
    bounds = [n]
    for origin in reversed(origins):
        bounds.append(int(origin[bounds[-1]]))
    return np.unique([0, *bounds])


def _one_more(table: Table, best: Floats) -> tuple[Floats, Integers]:
    """The row of the next number of clusters, and where each of its last clusters starts."""
    n = len(best) - 1
    row, origin = np.zeros(n + 1), np.zeros(n + 1, np.intp)
    for columns, left, right in _levels(n):
        low = np.where(left < 0, 0, origin[left])
        high = np.minimum(np.where(right > n, n, origin[np.minimum(right, n)]), columns)
        sizes = high - low + 1
        starts = np.cumsum(sizes) - sizes
        column = np.repeat(columns, sizes)
        candidate = np.arange(len(column)) + np.repeat(low - starts, sizes)
        error = best[candidate] + table.error(candidate, column)
        row[columns] = np.minimum.reduceat(error, starts)
        hits = np.flatnonzero(error == np.repeat(row[columns], sizes))
        origin[columns] = candidate[hits[np.searchsorted(hits, starts)]]
    return row, origin


def _levels(n: int) -> list[tuple[Integers, Integers, Integers]]:
    """Columns 0..n by bisection: those of a level, and their solved neighbours on both sides."""
    step = 1 << (n + 1).bit_length()
    levels = []
    while step > 1:
        step //= 2
        columns = np.arange(step - 1, n + 1, 2 * step)
        levels.append((columns, columns - step, columns + step))
    return [level for level in levels if len(level[0])]
