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
        sqnr_db: signal to quantisation noise ratio, ``-20 log10(relative)``; None if exact.
        cosine: of the angle between the two, as flat vectors.
        nonfinite: elements that are NaN or infinite in one and not in the other.
    """

    max_abs: float
    mean_abs: float
    p999_abs: float
    relative: float
    sqnr_db: float | None
    cosine: float
    nonfinite: int


def errors(actual: NDArray[Any], expected: NDArray[Any]) -> Errors:
    """Compare two arrays of the same shape.

    Raises:
        DkmError: the shapes differ, or the arrays are empty.
    """
    if actual.shape != expected.shape:
        raise DkmError(f"shape {actual.shape} in place of {expected.shape}")
    if not actual.size:
        raise DkmError("the outputs are empty: there is nothing to compare")
    a, e = actual.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    finite = np.isfinite(a) & np.isfinite(e)
    same = (np.isnan(a) & np.isnan(e)) | (a == e)
    nonfinite = int(np.count_nonzero(~finite & ~same))
    a, e = a[finite], e[finite]
    if not a.size:
        a = e = np.zeros(1)
    gap = np.abs(a - e)
    relative = _ratio(float(np.linalg.norm(gap)), float(np.linalg.norm(e)))
    norms = float(np.linalg.norm(a) * np.linalg.norm(e))
    return Errors(
        max_abs=float(gap.max()),
        mean_abs=float(gap.mean()),
        p999_abs=float(np.quantile(gap, 0.999)),
        relative=relative,
        sqnr_db=None if relative == 0 else float(-20 * np.log10(relative)),
        cosine=float(a @ e) / norms if norms else float(np.array_equal(a, e)),
        nonfinite=nonfinite,
    )


def top1_agreement(actual: NDArray[Any], expected: NDArray[Any]) -> float:
    """Share of rows, 0 to 1, whose largest element is at the same place; ``(n, classes)`` both."""
    return float(np.mean(actual.argmax(-1) == expected.argmax(-1)))


def accuracy(output: NDArray[Any], labels: NDArray[Any]) -> float:
    """Top-1 accuracy in percent of scores ``(n, classes)`` against integer labels ``(n,)``."""
    return 100 * float(np.mean(output.argmax(-1) == labels))


def _ratio(part: float, whole: float) -> float:
    """``part / whole``; a difference from an all-zero reference is infinite."""
    if part == 0:
        return 0.0
    return part / whole if whole else float("inf")
