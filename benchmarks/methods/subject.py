"""What a method is tried on: a trained model, data to calibrate with, and a test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

import dkm_deploy as dkm
from benchmarks.distil import Course
from dkm_deploy.model.inputs import call

Array = NDArray[Any]

LEAST = 1_000
"""Values that a weight has at least to be palettized; smaller ones stay dense in every row."""


@dataclass(frozen=True)
class Effort:
    """How much is spent on a cell; figures of different efforts are never mixed.

    Attributes:
        test_images: of CIFAR-10.
        every_pair: of STS-B's test is taken, 1, or every third, 3.
        steps: of a training.
        batch: images of CIFAR-10 in one step.
    """

    test_images: int
    every_pair: int
    steps: int
    batch: int


FULL = Effort(10_000, 1, 200, 128)
QUICK = Effort(2_000, 3, 60, 64)


@dataclass(frozen=True)
class Subject:
    """A model and its data. Test data is for the test alone.

    Attributes:
        name: of the model.
        metric: what the test tells.
        model: plain, fp32, in eval mode.
        calibration: a draw of batches, with labels or without, by seed.
        example: the arguments of one forward pass.
        answers: of a model on the test data, ``(n,)`` or ``(n, ..)``.
        score: of answers, in percent.
        agreement: of answers with the fp32 model's, in percent.
        candidates: that a plan chooses from.
        planned: batches of the calibration data that a plan measures with.
        axis: the dimension that vectors fill.
        folder: for what methods keep.
        course: of a training, by seed.
    """

    name: str
    metric: str
    model: nn.Module
    calibration: Callable[[int], Sequence[Any]]
    example: tuple[Tensor, ...]
    answers: Callable[[nn.Module], Array]
    score: Callable[[Array], float]
    agreement: Callable[[Array, Array], float]
    candidates: tuple[dkm.PaletteSpec, ...]
    planned: int
    axis: int
    folder: Path
    course: Callable[[int], Course]

    def recipe(self, spec: dkm.PaletteSpec) -> dkm.Recipe:
        """The same palette for every weight that is large enough."""
        return dkm.Recipe(spec, [dkm.Rule(max_elements=LEAST - 1, skip=True)])

    def specs(self, spec: dkm.PaletteSpec) -> dict[str, dkm.PaletteSpec]:
        """The palettes of that recipe by the weights' names."""
        return dict(self.recipe(spec).assign(self.model).specs)


@dataclass(frozen=True)
class Size:
    """What a palettized model weighs, whatever the file format.

    Attributes:
        bits_per_weight: indices at n bits and float16 LUTs, over the palettized weights.
        total_bytes: of those and all other parameters as float16. BatchNorm's running statistics
            are not counted: a converter folds them into weights and biases.
    """

    bits_per_weight: float
    total_bytes: int


def size_of(frozen: nn.Module) -> Size:
    """The size of a frozen model, or of a plain one."""
    palettes = dkm.palettes(frozen).values()
    packed = sum(
        -(-p.indices.size * p.bits // 8) + 2 * (p.lut_bytes // p.lut.itemsize) for p in palettes
    )
    count = sum(palette.size for palette in palettes)
    dense = sum(parameter.numel() for parameter in frozen.parameters())
    return Size(8 * packed / count if count else 16.0, packed + 2 * dense)


@torch.no_grad()
def outputs(model: nn.Module, batches: Sequence[Any]) -> Tensor:
    """Of a model on inputs, batch by batch, each weight decoded once."""
    with parametrize.cached():
        return torch.cat([call(model, batch) for batch in batches])


def same(answers: Array, others: Array) -> float:
    """Percent of equal answers."""
    return 100 * float(np.mean(answers == others))


def fast(images: Tensor) -> Tensor:
    """In the layout in which convolutions take a fifth less time on CPUs."""
    return images.contiguous(memory_format=torch.channels_last)
