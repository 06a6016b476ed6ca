"""One-dimensional k-means of a sorted table, by dynamic programming.

Optimal clusters of sorted values are runs (Wang and Song 2011, Ckmeans.1d.dp). With ``best[j]``
the least squared error of the first j entries in so many clusters, one more cluster gives
``min_i best[i] + error(i, j)``. The i that is best for j never decreases with j, so each such row
is found by divide and conquer in ``O(n log n)``, here one level of all subproblems at a time.

That is for each cluster. Where good bounds are known, each is looked for between its neighbours
only, which takes two such rows for all clusters together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]

_REACH = 8  # steps on each side of a bound that it may move by
_STEPS = 64  # that two clusters take


@dataclass(frozen=True)
class PrefixSums:
    """Prefix sums over n sorted entries, each ``(n + 1,)`` and starting at 0.

    Attributes:
        count: of values, strictly increasing.
        total: of values. They should be near 0, for the error is a difference of squares.
        square: of squared values.
    """

    count: Floats
    total: Floats
    square: Floats

    def __len__(self) -> int:
        return len(self.count) - 1

    def at(self, cuts: Integers) -> PrefixSums:
        """The table of the runs between increasing ``cuts``."""
        return PrefixSums(self.count[cuts], self.total[cuts], self.square[cuts])

    def error(self, start: Integers, stop: Integers) -> Floats:
        """Squared error of the runs ``[start, stop)`` about their means; 0 for empty runs."""
        count = np.maximum(self.count[stop] - self.count[start], 1)
        total = self.total[stop] - self.total[start]
        return np.maximum(self.square[stop] - self.square[start] - total * total / count, 0)

    def sum(self, bounds: Integers) -> float:
        """The squared error of all runs between ``bounds``."""
        return float(self.error(bounds[:-1], bounds[1:]).sum())


def optimal_runs(table: PrefixSums, clusters: int) -> Integers:
    """Bounds of the runs that have the least squared error, at most ``clusters`` of them.

    Returns:
        Increasing positions in 0..n, the first 0 and the last n.
    """
    inner = min(clusters, len(table)) - 1
    first, last = np.zeros(inner, np.intp), np.full(inner, len(table))
    return _best(table, first, last)


def between_neighbours(table: PrefixSums, bounds: Integers) -> Integers:
    """Bounds that are optimal while each stays between those next to it; takes good ones."""
    least = table.sum(bounds)
    while True:
        moved = _best(table, bounds[:-2], bounds[2:])
        error = table.sum(moved)
        if not error < least:
            return bounds
        bounds, least = moved, error


def step_by_step(table: PrefixSums, bounds: Integers) -> Integers:
    """Bounds that no joint move of all of them improves, each by up to eight steps.

    A step is first a 64th of its two clusters, and in the end one entry: for long tables.
    """
    least = table.sum(bounds)
    step = np.maximum((bounds[2:] - bounds[:-2]) // _STEPS, 1)
    while True:
        moved = _best_step(table, bounds, step)
        error = table.sum(moved)
        if error < least:
            bounds, least = moved, error
        elif (step == 1).all():
            return np.unique(bounds)
        else:
            step = np.maximum(step // 2, 1)


def _best_step(table: PrefixSums, bounds: Integers, step: Integers) -> Integers:
    """The best bounds of which each is at most eight steps from where it is."""
    n, width = len(table), 2 * _REACH + 1
    windows = bounds[1:-1, None] + step[:, None] * np.arange(-_REACH, _REACH + 1)
    ends = np.zeros((1, width), np.intp), np.full((1, width), n)
    places = np.concatenate([ends[0], windows.clip(0, n), ends[1]])
    starts, stops = places[:-1, :, None], places[1:, None, :]
    errors = np.where(starts <= stops, table.error(starts, stops), np.inf)
    best, origins = errors[0, 0], []
    for error in errors[1:]:
        sums = best[:, None] + error
        origins.append(sums.argmin(0))
        best = sums.min(0)
    column, found = 0, [n]
    for place, origin in zip(places[-2:0:-1], reversed(origins), strict=True):
        column = int(origin[column])
        found.append(int(place[column]))
    return np.array([0, *reversed(found)], np.intp)


def _best(table: PrefixSums, low: Integers, high: Integers) -> Integers:
    """The best bounds in 0..n of which inner ones lie in ``low..high``, neither decreasing."""
    n = len(table)
    first, origins = 0, []
    best = np.zeros(1)
    for start, stop in zip([*low.tolist(), n], [*high.tolist(), n], strict=True):
        best, origin = _one_more(table, best, first, start, stop)
        origins.append((start, origin))
        first = start
    bounds = [n]
    for start, origin in reversed(origins):
        bounds.append(int(origin[bounds[-1] - start]))
    return np.unique(bounds)


def _one_more(
    table: PrefixSums, best: Floats, first: int, start: int, stop: int
) -> tuple[Floats, Integers]:
    """One more cluster that ends at ``start`` to ``stop``.

    Args:
        table: of all entries.
        best: errors up to where the cluster may start.
        first: position of the first of these, at most ``start``.
        start: first position where the cluster may end.
        stop: last position where it may end.

    Returns:
        The least error for each end, and the position where its last cluster starts.
    """
    last, n = len(best) - 1, stop - start
    row, origin = np.zeros(n + 1), np.zeros(n + 1, np.intp)
    for columns, left, right in _levels(n):
        low = np.where(left < 0, 0, origin[left])
        high = np.where(right > n, last, origin[np.minimum(right, n)])
        # Errors of values that are far apart are rounded, so that the bounds may cross.
        high = np.maximum(low, np.minimum(high, columns + (start - first)))
        sizes = high - low + 1
        starts = np.cumsum(sizes) - sizes
        column = np.repeat(columns, sizes)
        candidate = np.arange(len(column)) + np.repeat(low - starts, sizes)
        error = best[candidate] + table.error(candidate + first, column + start)
        row[columns] = np.minimum.reduceat(error, starts)
        hits = np.flatnonzero(error == np.repeat(row[columns], sizes))
        origin[columns] = candidate[hits[np.searchsorted(hits, starts)]]
    return row, origin + first


def _levels(n: int) -> list[tuple[Integers, Integers, Integers]]:
    """Columns 0..n by bisection: those of a level, and their solved neighbours on both sides.

    The first level has up to fifteen columns without neighbours: one pass costs less than four.
    """
    step = max(1, (1 << (n + 1).bit_length()) // 16)
    columns = np.arange(step - 1, n + 1, step)
    levels = [(columns, np.full_like(columns, -1), np.full_like(columns, n + 1))]
    while step > 1:
        step //= 2
        columns = np.arange(step - 1, n + 1, 2 * step)
        levels.append((columns, columns - step, columns + step))
    return levels
