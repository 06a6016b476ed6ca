"""ResNet-20 on CIFAR-10: calibrated and trained on training images, tested on all test images."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.distil import Lessons
from benchmarks.methods.subject import Array, Effort, Subject, outputs, same
from benchmarks.resnet20 import cifar, normalised, pretrained
from dkm_deploy.planning.candidates import DEFAULT

_CALIBRATION, _BATCH, _TEST_BATCH = 256, 16, 125


def resnet20(data: Path, folder: Path, effort: Effort) -> Subject:
    """The model and its data."""
    model, train, test = pretrained(data), cifar(data, "train"), cifar(data, "test")
    images = [
        _fast(normalised(part))
        for part in torch.split(test.images[: effort.test_images], _TEST_BATCH)
    ]
    labels = test.labels[: effort.test_images].numpy()

    def _drawn(seed: int, count: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randperm(len(train.labels), generator=generator)[:count]

    def _calibration(seed: int) -> list[Any]:
        return [train.batch(index) for index in torch.split(_drawn(seed, _CALIBRATION), _BATCH)]

    @cache
    def _taught(seed: int) -> list[tuple[Tensor, Tensor]]:
        drawn = torch.split(_drawn(seed, effort.batch * effort.steps), effort.batch)
        scores = outputs(model, [_fast(train.batch(index)[0]) for index in drawn])
        return list(zip(drawn, torch.split(scores, effort.batch), strict=True))

    def _lessons(seed: int) -> Lessons:
        for index, taught in _taught(seed):
            yield _fast(train.batch(index)[0]), taught

    def _answers(tried: nn.Module) -> Array:
        found: Array = outputs(tried, images).argmax(1).numpy()
        return found

    return Subject(
        name="ResNet-20",
        metric="CIFAR-10 test top-1, %",
        model=model,
        calibration=_calibration,
        example=(images[0][:1],),
        answers=_answers,
        score=lambda answers: same(answers, labels),
        agreement=same,
        candidates=DEFAULT,
        planned=_CALIBRATION // _BATCH,
        axis=1,
        folder=folder,
        lessons=_lessons,
        steps=effort.steps,
    )


def _fast(images: Tensor) -> Tensor:
    """In the layout in which convolutions take a fifth less time here."""
    return images.contiguous(memory_format=torch.channels_last)
