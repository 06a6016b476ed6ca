"""What other values of a weight cost the outputs, all other weights being as they were."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dkm_deploy.model.calibration import BATCH, Calibration, batches, tensors_of
from dkm_deploy.model.inputs import split_batch, to_device
from dkm_deploy.model.metric import Metric
from dkm_deploy.model.pt2_program import fixed_batch
from dkm_deploy.post_training.output_loss import OutputLoss


class LossProbe:
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
        DkmError: there is no batch, the model does not run on one, or the metric lacks labels or
            is not finite.
    """

    def __init__(
        self, model: nn.Module, calibration: Calibration | None, metric: Metric | None
    ) -> None:
        self._model = copy.deepcopy(model).eval()
        self.metric = metric
        self._device = next(self._model.parameters()).device
        self.samples: Sequence[Any] = list(batches(calibration, fixed_batch(model) or BATCH))
        self._inputs, labels = zip(*(split_batch(batch) for batch in self.samples), strict=True)
        self._outputs_loss = OutputLoss(self._run(), labels, metric)
        self.baseline = self._outputs_loss.baseline

    @torch.no_grad()
    def loss(self, name: str, values: Tensor) -> float:
        """What the model loses by other values of the weight called ``name``.

        Returns:
            As of :meth:`dkm_deploy.post_training.output_loss.OutputLoss.loss`.
        """
        weight = self._model.get_parameter(name)
        kept = weight.detach().clone()
        weight.copy_(values)
        try:
            outputs = self._run()
        finally:
            weight.copy_(kept)
        return self._outputs_loss.loss(outputs)

    @torch.no_grad()
    def keep(self, name: str, values: Tensor) -> None:
        """Go on with other values of a weight; losses stay against the model as it was."""
        self._model.get_parameter(name).copy_(values)

    @torch.no_grad()
    def _run(self) -> list[list[Tensor]]:
        return [self._outputs(number, batch) for number, batch in enumerate(self._inputs, 1)]

    def _outputs(self, number: int, inputs: Any) -> list[Tensor]:
        return tensors_of(self._model, to_device(inputs, self._device), number)
