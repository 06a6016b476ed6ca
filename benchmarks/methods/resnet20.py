"""ResNet-20 on CIFAR-10: calibrated and trained on training images, tested on all test images."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.distil import Course, scores, sgd
from benchmarks.methods.subject import Array, Effort, Subject, fast, outputs, same
from benchmarks.resnet20 import CALIBRATION_BATCHES, cifar, normalised, pretrained
from dkm_deploy.planning.candidates import DEFAULT

_TEST_BATCH = 125
_RATE = 0.005  # at 0.02 the model without palettes loses 1.5 points


def resnet20(data: Path, folder: Path, effort: Effort) -> Subject:
    """The model and its data."""
    model, train, test = pretrained(data), cifar(data, "train"), cifar(data, "test")
    images = [
        fast(normalised(part))
        for part in torch.split(test.images[: effort.test_images], _TEST_BATCH)
    ]
    labels = test.labels[: effort.test_images].numpy()

    @cache
    def _taught(seed: int) -> list[tuple[Tensor, Tensor]]:
        drawn = torch.split(train.drawn(seed, effort.batch * effort.steps), effort.batch)
        taught = outputs(model, [fast(train.batch(index)[0]) for index in drawn])
        return list(zip(drawn, torch.split(taught, effort.batch), strict=True))

    def _lessons(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        for index, taught in _taught(seed):
            yield fast(train.batch(index)[0]), taught

    def _course(seed: int) -> Course:
        return Course(_lessons(seed), effort.steps, scores, sgd, _RATE, norms=True)

    def _answers(tried: nn.Module) -> Array:
        found: Array = outputs(tried, images).argmax(1).numpy()
        return found

    return Subject(
        name="ResNet-20",
        metric="CIFAR-10 test top-1, %",
        model=model,
        calibration=train.calibration,
        example=(images[0][:1],),
        answers=_answers,
        score=lambda answers: same(answers, labels),
        agreement=same,
        candidates=DEFAULT,
        planned=CALIBRATION_BATCHES,
        axis=1,
        folder=folder,
        course=_course,
    )
