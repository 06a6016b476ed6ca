"""What counts of a model's answers where there are labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Metric = Callable[[NDArray[Any], NDArray[Any]], float]
"""``metric(first output, labels)``, more is better."""


def accuracy(output: NDArray[Any], labels: NDArray[Any]) -> float:
    """Top-1 accuracy in percent of scores ``(n, classes)`` against integer labels ``(n,)``."""
    return 100 * float(np.mean(output.argmax(-1) == labels))
