"""Networks that know spoken digits: distilled on all training clips, tested on the others."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.spoken_digits import (
    BANDS,
    FRAMES,
    Clips,
    batches,
    clips,
    features,
    pretrained,
    steps_of,
)

_CALIBRATION, _BATCH = 256, 32


class SpokenDigitsTask:
    """A network and its data; see :class:`benchmarks.accuracy.task.TrainingTask`."""

    metric = "spoken digits top-1, %"
    example: tuple[Tensor, ...] = (torch.zeros(1, 1, FRAMES, BANDS),)

    def __init__(self, network: str, data: Path, out: Path) -> None:
        """Of a key of ``NETWORKS``; the fp32 model is kept in ``out``."""
        self._network, self._data, self._folder = network, data, out / "spoken-digits"

    def model(self) -> nn.Module:
        """The fp32 model, in eval mode; the first call trains it."""
        return pretrained(self._network, self._train, self._folder)

    def batches(self, seed: int, epoch: int) -> Iterator[Tensor]:
        """Inputs of an epoch, shifted and with a little noise by chance."""
        return (inputs for inputs, _ in batches(self._train, 1_000 * (seed + 1) + epoch))

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return steps_of(self._train)

    def optimizer(self, model: nn.Module, rate: float) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(model.parameters(), rate)

    def calibration(self, seed: int) -> list[Tensor]:
        """256 training clips."""
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self._train.labels), generator=generator)[:_CALIBRATION]
        return [features(self._train.waves[part]) for part in torch.split(order, _BATCH)]

    def test(self) -> dict[str, Any]:
        """300 clips and their digits, for top-1 accuracy."""
        return {"inputs": features(self._test.waves), "labels": self._test.labels}

    @property
    def _train(self) -> Clips:
        return self._clips[0]

    @property
    def _test(self) -> Clips:
        return self._clips[1]

    @cached_property
    def _clips(self) -> tuple[Clips, Clips]:
        return clips(self._data)
