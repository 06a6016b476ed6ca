"""How far two outputs are apart. Pure numpy, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dkm_deploy.errors import DkmError


@dataclass(frozen=True)
class Errors:
    """``actual`` against ``expected``, over all elements where both are finite.

    Attributes:
        max_abs: largest absolute difference.
        mean_abs: mean absolute difference.
        p999_abs: 99.9th percentile of the absolute difference.
        relative: ``|actual - expected| / |expected|``, Euclidean norms over the whole output.
        element: largest ``|actual - expected| / max(|expected|, floor)`` of an element; the floor
            is the root mean square of ``expected``, so that a value near zero does not blow it up.
        sqnr_db: signal to quantisation noise ratio, ``-20 log10(relative)``; None if exact.
        psnr_db: ``20 log10(peak / rms error)``, the peak being the largest ``|expected|``; None if
            exact. Both means are over all elements, whatever the shape.
        cosine: of the angle between the two, as flat vectors.
        nonfinite: elements that are NaN or infinite in one and not in the other.
        compared: elements that all but ``nonfinite`` are about.
    """

    max_abs: float
    mean_abs: float
    p999_abs: float
    relative: float
    element: float
    sqnr_db: float | None
    psnr_db: float | None
    cosine: float
    nonfinite: int
    compared: int


def errors(actual: NDArray[Any], expected: NDArray[Any]) -> Errors:
    """Compare two arrays of the same shape.

    Raises:
        DkmError: the shapes differ, or the arrays are empty.
    """
    if actual.shape != expected.shape:
        raise DkmError(f"shape {actual.shape} in place of {expected.shape}")
    if not actual.size:
        raise DkmError("the outputs are empty: there is nothing to compare")
    with np.errstate(invalid="ignore"):  # a signalling NaN, which is counted like any other
        a, e = actual.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    gap = np.abs(difference(actual, expected)).ravel()
    finite = np.isfinite(a) & np.isfinite(e)
    same = (np.isnan(a) & np.isnan(e)) | (a == e)
    nonfinite = int(np.count_nonzero(~finite & ~same))
    a, e, gap = a[finite], e[finite], gap[finite]
    if not a.size:
        return _incomparable(nonfinite)
    size = np.abs(e)
    rms_gap, rms = _rms(gap), _rms(e)
    relative = _ratio(rms_gap, rms)
    norms = float(np.linalg.norm(a) * np.linalg.norm(e))
    return Errors(
        max_abs=float(gap.max()),
        mean_abs=float(gap.mean()),
        p999_abs=float(np.quantile(gap, 0.999)),
        relative=relative,
        element=float((gap / np.maximum(size, rms)).max()) if rms else relative,
        sqnr_db=_decibels(relative),
        psnr_db=_decibels(_ratio(rms_gap, float(size.max()))),
        cosine=float(a @ e) / norms if norms else float(np.array_equal(a, e)),
        nonfinite=nonfinite,
        compared=int(a.size),
    )


def difference(actual: NDArray[Any], expected: NDArray[Any]) -> NDArray[np.float64]:
    """``actual - expected`` in float64; 1 where whole numbers differ by what it has no digits for.

    NaN or infinite where one of them is.
    """
    with np.errstate(invalid="ignore"):
        gap = actual.astype(np.float64) - expected.astype(np.float64)
    if are_whole(actual) or are_whole(expected):
        gap[(gap == 0) & (actual != expected)] = 1
    return gap


def are_whole(values: NDArray[Any]) -> bool:
    """Whether these are whole numbers or truth values, which are equal or not."""
    return values.dtype.kind in "iub"


def _ratio(part: float, whole: float) -> float:
    """``part / whole``; a difference from an all-zero reference is infinite."""
    if part == 0:
        return 0.0
    return part / whole if whole else float("inf")


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(values) / np.sqrt(values.size))


def _decibels(noise: float) -> float | None:
    """Signal over ``noise``, which is a share of it, in dB; None without noise."""
    if noise == 0:
        return None
    return float(-20 * np.log10(noise))


def _incomparable(nonfinite: int) -> Errors:
    nothing = float("nan")
    return Errors(
        max_abs=nothing,
        mean_abs=nothing,
        p999_abs=nothing,
        relative=nothing,
        element=nothing,
        sqnr_db=None,
        psnr_db=None,
        cosine=nothing,
        nonfinite=nonfinite,
        compared=0,
    )
