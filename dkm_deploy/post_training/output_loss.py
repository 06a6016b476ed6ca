"""How much other outputs lose against those that a model gives as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dkm_deploy.errors import DkmError, reason_of
from dkm_deploy.model.metric import Metric, accuracy, chance_warning, score

Outputs = Sequence[Sequence[Tensor]]
"""Of each batch, in the order of the model."""


class OutputLoss:
    """Holds what is expected.

    Attributes:
        metric: what counts; None is the relative squared error of the outputs.
        baseline: the metric of what is expected; None without one.

    Args:
        expected: the outputs of the model as it is.
        labels: of each batch; None where it has none.
        metric: what counts; None is the relative squared error of the outputs.

    Raises:
        DkmError: the metric lacks labels, cannot be computed or is not finite, or top-1 accuracy is
            no more than guessing gives; or, without one, the outputs are not finite.
    """

    def __init__(self, expected: Outputs, labels: Sequence[Any], metric: Metric | None) -> None:
        self.metric = metric
        self._expected = expected
        self._labels = None if metric is None else _join_labels(labels)
        self.baseline = None if metric is None else self._score(expected)
        if self.baseline is not None and not np.isfinite(self.baseline):
            raise DkmError(f"the metric of the dense model is {self.baseline}")
        if metric is accuracy and self.baseline is not None and self._labels is not None:
            odd = chance_warning(self.baseline, _first(expected), self._labels)
            if odd:
                raise DkmError(odd)
        if metric is None and not all(t.isfinite().all() for batch in expected for t in batch):
            raise DkmError("the model gives NaN or infinity on the calibration data; use a metric")

    def loss(self, outputs: Outputs) -> float:
        """What other outputs lose.

        Returns:
            Points of the metric, or ``|outputs - expected|**2 / |expected|**2``, summed over the
            outputs; infinity where they are not finite.
        """
        if self.baseline is None:
            return _relative_error(outputs, self._expected)
        score = self._score(outputs)
        return self.baseline - score if np.isfinite(score) else float("inf")

    def _score(self, outputs: Outputs) -> float:
        return score(self.metric, _first(outputs), self._labels)  # type: ignore[arg-type]  # there


def _first(outputs: Outputs) -> NDArray[Any]:
    return np.concatenate([batch[0].cpu().numpy() for batch in outputs])


def _join_labels(labels: Sequence[Any]) -> NDArray[Any]:
    if any(part is None for part in labels):
        raise DkmError(
            "metric needs labels, and the calibration data has none; give (inputs, labels)"
        )
    try:
        return np.concatenate([torch.as_tensor(part).cpu().numpy() for part in labels])
    except (TypeError, ValueError) as error:
        raise DkmError(
            f"the labels of the batches cannot be joined to one array: {reason_of(error)}"
        ) from error


def _relative_error(outputs: Outputs, expected: Outputs) -> float:
    """Summed over the outputs of a model, each over all batches."""
    total = 0.0
    for actual, wanted in zip(zip(*outputs, strict=True), zip(*expected, strict=True), strict=True):
        gap = sum(
            float((a - w).double().square().sum()) for a, w in zip(actual, wanted, strict=True)
        )
        size = sum(float(w.double().square().sum()) for w in wanted)
        if not np.isfinite(gap) or (gap and not size):
            return float("inf")
        total += gap / size if gap else 0.0
    return total
