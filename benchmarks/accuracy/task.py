"""What a way to palettes is given: a trained network and its data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn


class Task(Protocol):
    """A trained network with its data, such as ResNet-20 on CIFAR-10.

    Attributes:
        metric: what the score is.
        example: of the model's inputs.
    """

    metric: str
    example: tuple[Tensor, ...]

    def model(self) -> nn.Module:
        """The trained fp32 model, in eval mode."""

    def calibration(self, seed: int) -> list[Tensor]:
        """Batches of inputs, none of them a test's."""

    def test(self) -> dict[str, Any]:
        """Arguments of ``dkm.validate``: inputs, labels and metric."""


@runtime_checkable
class TrainingTask(Task, Protocol):
    """One with data to train on."""

    @property
    def steps(self) -> int:
        """Batches of an epoch."""

    def batches(self, seed: int, epoch: int) -> Iterator[Any]:
        """Inputs of an epoch."""

    def optimizer(self, model: nn.Module, rate: float) -> torch.optim.Optimizer:
        """That suits the network."""
