"""EfficientNet-Lite0 on ImageNet: a fifth of the images that are at hand calibrates."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.efficientnet_lite0 import ImageNet, imagenet, pretrained
from benchmarks.methods.packages import EFFICIENTNET, folder_of


def packages_in(out: Path) -> Path:
    """Where packages with models are unpacked."""
    return out / "packages"


class EfficientNetTask:
    """The network and its data; see :class:`benchmarks.accuracy.task.Task`."""

    metric = "ImageNet top-1 of 1000 classes, %"
    example: tuple[Tensor, ...] = (torch.zeros(1, 3, 224, 224),)

    def __init__(self, data: Path, out: Path) -> None:
        self._data = data
        self._packages = [folder_of(packages_in(out), package) for package in EFFICIENTNET]

    def model(self) -> nn.Module:
        """The trained fp32 model, in eval mode."""
        return pretrained((self._packages[0], self._packages[1]))

    def calibration(self, seed: int) -> list[Tensor]:
        """32 images."""
        return self._images.calibration(seed)

    def test(self) -> dict[str, Any]:
        """200 images and their classes, for top-1 accuracy."""
        return {"inputs": self._images.test, "labels": self._images.test_labels}

    @cached_property
    def _images(self) -> ImageNet:
        return imagenet(self._data)
