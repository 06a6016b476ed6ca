"""Whether the values of a stored tensor are those that they should be, and if not, how far off."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_SAMPLE = 64  # values that tell most tensors apart before all are compared
_BLOCK = 1 << 20
_MOST_HALF = float(np.finfo(np.float16).max)
_SMALLEST_HALF = 2.0**-24
_FOLDING = 8 * float(np.finfo(np.float32).eps)  # what working a value out in float32 may cost it
_LIKE, _LIKE_FEW = (0.2, 0.3), (0.1, 0.15)  # relative difference; the same about the means
_FEW = 16  # values; of fewer, a likeness may be chance
_FEWEST = 4
_MANY = 64  # values; the order of fewer may outlast an error
_EVEN = 1e-6  # of the length: what rounding leaves about the mean of values that are all one
_MOST_PRODUCTS = 1 << 26
_PROPORTIONAL = 2.0**-9  # of the largest value: float16 on both sides


def round_to(values: Array, dtype: np.dtype[Any]) -> Array:
    """Values in the type of a file."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return values.astype(dtype)


def are_equal(stored: Array, wanted: Array, operands: Array | None = None) -> bool:
    """Whether flat values are those of an array of any shape, after the file's rounding.

    Args:
        stored: shape ``(n,)``, in the type of the file.
        wanted: what they should be, in the order of its dimensions.
        operands: the shape of ``wanted``; where that is worked out from others, how large they
            are: values are the same within a unit in the last place of these.
    """
    if stored.size != wanted.size:
        return False
    wanted = np.atleast_1d(wanted)  # the bias of a lone channel may be a scalar
    operands = None if operands is None else np.atleast_1d(operands)
    places = np.linspace(0, wanted.size - 1, min(wanted.size, _SAMPLE)).astype(np.intp)
    at = np.unravel_index(places, wanted.shape)
    spread = None if operands is None else operands[at].reshape(-1)
    if not _equal(stored[places], wanted[at].reshape(-1), spread):
        return False
    flat, spread = wanted.reshape(-1), None if operands is None else operands.reshape(-1)
    return all(
        _equal(
            stored[i : i + _BLOCK],
            flat[i : i + _BLOCK],
            None if spread is None else spread[i : i + _BLOCK],
        )
        for i in range(0, flat.size, _BLOCK)
    )


def _equal(stored: Array, wanted: Array, operands: Array | None) -> bool:
    if operands is not None:
        unit = float(np.finfo(stored.dtype).eps) if stored.dtype.kind == "f" else 2.0**-8
        error = np.abs(stored.astype(np.float64) - wanted)
        return bool((error <= (unit + _FOLDING) * operands).all())
    expected = round_to(wanted, stored.dtype)
    equal = (stored == expected) | (np.isnan(stored) & np.isnan(expected))
    if stored.dtype == np.float16:  # one rounding after the other, or no infinity
        wide = np.clip(wanted.astype(np.float32), -_MOST_HALF, _MOST_HALF)
        equal |= stored == wide.astype(np.float16)
        equal |= np.abs(stored - wide) <= _SMALLEST_HALF  # some tools flush such to zero
    return bool(equal.all())


def error_of(stored: Array, wanted: Array) -> tuple[float, float]:
    """How far flat values are from an array's: relative to its length, and the largest difference.

    Infinite where the array is zero or a value is no number.
    """
    a, b = stored.astype(np.float64), wanted.reshape(-1).astype(np.float64)
    with np.errstate(all="ignore"):
        difference = np.abs(a - b)
        relative = np.linalg.norm(difference) / np.linalg.norm(b)
        largest = difference.max(initial=0.0)
    return tuple(float(n) if np.isfinite(n) else float("inf") for n in (relative, largest))  # type: ignore[return-value]


def is_like(stored: Array, wanted: Array) -> bool:
    """Whether flat values are like an array's, although not equal: more than chance gives.

    They are near as they are, and about their means: vectors of values near one are all near each
    other. Values that are all one are like others that are.
    """
    if stored.size < _FEWEST:
        return False
    a, b = stored.astype(np.float64), wanted.reshape(-1).astype(np.float64)
    relative, about = _LIKE_FEW if stored.size < _FEW else _LIKE
    a_mean, b_mean = a - a.mean(), b - b.mean()
    length, spread = np.linalg.norm(b), np.linalg.norm(b_mean)
    even = max(spread, np.linalg.norm(a_mean)) <= _EVEN * length
    return bool(
        np.isfinite(a).all()
        and length > 0
        and np.linalg.norm(a - b) <= relative * length
        and (even or np.linalg.norm(a_mean - b_mean) <= about * spread)
    )


def is_multiple(stored: Array, wanted: Array) -> bool:
    """Whether flat values are an array's times one number, within the rounding of float16."""
    a, b = stored.astype(np.float64), wanted.reshape(-1).astype(np.float64)
    square = float(b @ b)
    if not square:
        return False
    return _negligible(a - b * (float(a @ b) / square), b)


def is_computed(stored: Array, wanted: Array) -> bool:
    """Whether a program may have worked flat values out from an array that they are like.

    So it is where some are zero and the others as they were (a mask), where the order of values is
    kept but not their proportion (a clamp, a tanh), and where one vector is added to all rows.
    """
    a, b = stored.astype(np.float64), wanted.reshape(-1).astype(np.float64)
    masked = _equal(stored[a != 0], wanted.reshape(-1)[a != 0], None) and bool((a == 0).any())
    ordered = bool((np.diff(a[np.argsort(b, kind="stable")]) >= 0).all())
    added = (a - b).reshape(-1, wanted.shape[-1])
    shifted = len(added) > 1 and _negligible(added - added[0], b)
    return masked or shifted or (ordered and a.size >= _MANY and not is_multiple(stored, wanted))


def _negligible(error: Array, beside: Array) -> bool:
    return bool(np.abs(error).max() <= _PROPORTIONAL * np.abs(beside).max())


def are_rows(rows: Array, table: Array) -> bool:
    """Whether all rows are rows of a table, after the file's rounding.

    Args:
        rows: shape ``(n, width)``, in the type of the file.
        table: shape ``(m, width)``. Of a table of single values, rows must come in a run.
    """
    table = np.ascontiguousarray(round_to(table, rows.dtype))
    whole = np.dtype((np.void, table.dtype.itemsize * table.shape[1]))
    found, wanted = (
        table.view(whole).reshape(-1),
        np.ascontiguousarray(rows).view(whole).reshape(-1),
    )
    if table.shape[1] > 1:
        return bool(np.isin(wanted, found).all())
    starts = np.flatnonzero(found == wanted[0])
    return any(np.array_equal(found[s : s + wanted.size], wanted) for s in starts[:_SAMPLE])


def nearest_rows(rows: Array, table: Array) -> Array | None:
    """For each row the row of a table that is nearest; None where looking for it takes too long.

    Args:
        rows: shape ``(n, width)``.
        table: shape ``(m, width)``.
    """
    if rows.size * len(table) > _MOST_PRODUCTS:
        return None
    a, b = rows.astype(np.float32), table.astype(np.float32)
    # The square of the distance, less the part that is the same for all rows of the table.
    distances = (b * b).sum(1) - 2 * a @ b.T
    nearest: Array = table[distances.argmin(1)]
    return nearest
