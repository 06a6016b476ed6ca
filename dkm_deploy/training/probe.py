"""What other values of a weight cost the outputs, all other weights being as they were."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from dkm_deploy.errors import DkmError
from dkm_deploy.training.calibration import Calibration, batches, outputs_of
from dkm_deploy.training.step import parted, to_device

Metric = Callable[[NDArray[Any], NDArray[Any]], float]
"""``metric(first output, labels)``, more is better, as :func:`dkm_deploy.validate` takes it."""

_Outputs = list[Tensor]


class Probe:
    """Runs a model on calibration data with one weight changed at a time.

    Attributes:
        samples: the batches.
        metric: what counts; None is the relative squared error of the outputs.
        baseline: the metric of the model as it is; None without one.

    Args:
        model: a plain model; a copy of it is worked on, in eval mode.
        calibration: is held in memory, and the model's outputs on it; None is refused.
        metric: what counts; None is the relative squared error of the outputs.

    Raises:
        DkmError: there is no batch, the model does not run on one, or the metric lacks labels.
    """

    def __init__(
        self, model: nn.Module, calibration: Calibration | None, metric: Metric | None
    ) -> None:
        self._model = copy.deepcopy(model).eval()
        self.metric = metric
        self._device = next(self._model.parameters()).device
        self.samples: Sequence[Any] = list(batches(calibration))
        self._inputs, labels = zip(*(parted(batch) for batch in self.samples), strict=True)
        self._labels = None if metric is None else _labels(labels)
        self._expected = self._run()
        self.baseline = None if metric is None else self._score(self._expected)

    @torch.no_grad()
    def loss(self, name: str, values: Tensor) -> float:
        """What the model loses by other values of the weight called ``name``.

        Returns:
            Points of the metric, or ``|outputs - expected|**2 / |expected|**2``, summed over the
            outputs; infinity where they are not finite.
        """
        weight = self._model.get_parameter(name)
        kept = weight.detach().clone()
        weight.copy_(values)
        try:
            outputs = self._run()
        finally:
            weight.copy_(kept)
        if self.baseline is not None:
            return self.baseline - self._score(outputs)
        return _relative_error(outputs, self._expected)

    @torch.no_grad()
    def keep(self, name: str, values: Tensor) -> None:
        """Go on with other values of a weight; losses stay against the model as it was."""
        self._model.get_parameter(name).copy_(values)

    @torch.no_grad()
    def _run(self) -> list[_Outputs]:
        return [self._outputs(number, batch) for number, batch in enumerate(self._inputs, 1)]

    def _outputs(self, number: int, inputs: Any) -> _Outputs:
        outputs = outputs_of(self._model, to_device(inputs, self._device), number)
        return [t.float() for t in pytree.tree_leaves(outputs) if torch.is_tensor(t)]

    def _score(self, outputs: list[_Outputs]) -> float:
        first = np.concatenate([batch[0].cpu().numpy() for batch in outputs])
        return float(self.metric(first, self._labels))  # type: ignore[misc,arg-type]  # both there


def _labels(labels: Sequence[Any]) -> NDArray[Any]:
    if any(part is None for part in labels):
        raise DkmError("metric needs labels: give calibration batches of (inputs, labels)")
    return np.concatenate([torch.as_tensor(part).cpu().numpy() for part in labels])


def _relative_error(outputs: list[_Outputs], expected: list[_Outputs]) -> float:
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
