"""ResNet-20 on CIFAR-10: distilled from fp32 on all training images, tested on all test images."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.methods.subject import fast
from benchmarks.resnet20 import Cifar, cifar, normalised, pretrained

_BATCH, _EDGE, _SIDE = 128, 4, 32
_IMAGES = 4  # dimensions


class ResNet20Task:
    """The network and its data; see :class:`benchmarks.accuracy.task.TrainingTask`."""

    metric = "CIFAR-10 test top-1, %"
    example: tuple[Tensor, ...] = (torch.zeros(1, 3, _SIDE, _SIDE),)

    def __init__(self, data: Path, _out: Path) -> None:
        self._data = data

    def model(self) -> nn.Module:
        """The trained fp32 model, in eval mode."""
        model = pretrained(self._data)
        for parameter in model.parameters():
            if parameter.ndim == _IMAGES:
                parameter.data = fast(parameter.data)
        return model

    def batches(self, seed: int, epoch: int) -> Iterator[Tensor]:
        """Inputs of an epoch, each image shifted and mirrored by chance."""
        generator = torch.Generator().manual_seed(1_000 * seed + epoch)
        order = torch.randperm(len(self._train.labels), generator=generator)
        for index in torch.split(order, _BATCH):
            if len(index) == _BATCH:
                yield fast(augmented(normalised(self._train.images[index]), generator))

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return len(self._train.labels) // _BATCH

    def optimizer(self, model: nn.Module, rate: float) -> torch.optim.Optimizer:
        """SGD with momentum."""
        return torch.optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=1e-4)

    def calibration(self, seed: int) -> list[Tensor]:
        """256 training images."""
        return [images for images, _ in self._train.calibration(seed)]

    def test(self) -> dict[str, Any]:
        """All test images and their classes, for top-1 accuracy."""
        return {"inputs": normalised(self._test.images), "labels": self._test.labels}

    @cached_property
    def _train(self) -> Cifar:
        return cifar(self._data, "train")

    @cached_property
    def _test(self) -> Cifar:
        return cifar(self._data, "test")


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image mirrored or not, and shifted by up to 4 pixels."""
    count = len(images)
    mirrored = torch.rand(count, generator=generator) < 0.5
    images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)
    padded = functional.pad(images, (_EDGE,) * 4)
    down, right = torch.randint(0, 2 * _EDGE + 1, (2, count, 1), generator=generator)
    rows, columns = down + torch.arange(_SIDE), right + torch.arange(_SIDE)
    which = torch.arange(count).view(-1, 1, 1)
    return padded.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)
