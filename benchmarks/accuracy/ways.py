"""Ways to palettes: trained for hours, or planned and corrected in minutes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

import dkm_deploy as dkm
from benchmarks.accuracy.clock import Clock
from benchmarks.accuracy.task import Task, TrainingTask
from dkm_deploy.training.methods.protocol import Method

_EVERY = 100  # steps between two checkpoints
_CLIP = 1.0


@dataclass(frozen=True)
class Made:
    """Palettes.

    Attributes:
        frozen: the model that has them.
        others: further models to score, by name.
    """

    frozen: nn.Module
    others: Mapping[str, nn.Module] = field(default_factory=dict)


class Way(Protocol):
    """Makes palettes for a network."""

    def make(self, task: Task, seed: int, folder: Path, clock: Clock) -> Made:
        """Make them.

        Args:
            task: the network and its data.
            seed: of all that is drawn.
            folder: for what is kept; a second call goes on from it.
            clock: is told of the work.
        """


@dataclass(frozen=True)
class Trained:
    """Distilled from the fp32 model, which needs no labels.

    Attributes:
        recipe: which weight gets which palette.
        epochs: passes over the training data.
        rate: of the first step; it falls by a cosine.
        method: how the palettes are trained.
    """

    recipe: dkm.Recipe
    epochs: int
    rate: float
    method: str | Method = "dkm"

    def make(self, task: Task, seed: int, folder: Path, clock: Clock) -> Made:
        """See :meth:`Way.make`."""
        if not isinstance(task, TrainingTask):
            raise TypeError(f"{type(task).__name__} has nothing to train on")
        torch.manual_seed(seed)
        model = dkm.prepare(task.model(), self.recipe, self.method)
        optimizer = task.optimizer(model, self.rate)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.epochs * task.steps)
        dkm.fit(
            model,
            lambda epoch: task.batches(seed, epoch),
            epochs=self.epochs,
            optimizer=optimizer,
            scheduler=scheduler,
            teacher=task.model(),
            teacher_weight=1.0,
            clip_norm=_CLIP,
            checkpoint=folder / "checkpoint.pt",
            every=_EVERY,
            after_step=lambda step, _loss: _note(clock, step),
        )
        clock.note()
        return Made(dkm.freeze(model), {"soft": dkm.soft_copy(model)})


@dataclass(frozen=True)
class Planned:
    """A plan for a budget, plain k-means, then LUTs, biases and BatchNorms by the outputs.

    Attributes:
        budget: bytes of each file.
        candidates: palettes to choose from.
    """

    budget: int
    candidates: tuple[dkm.PaletteSpec, ...]

    def make(self, task: Task, seed: int, folder: Path, clock: Clock) -> Made:
        """See :meth:`Way.make`."""
        model, calibration = task.model(), task.calibration(seed)
        plan = dkm.plan(
            model,
            self.budget,
            ("onnx", "coreml"),
            calibration,
            candidates=self.candidates,
            example_inputs=task.example,
            cache=folder / "measured",
        )
        planned = dkm.palettize(model, plan)
        clock.note()
        corrected = dkm.correct_outputs(planned, model, calibration)
        clock.note()
        return Made(corrected, {"planned": planned})


def _note(clock: Clock, step: int) -> None:
    """Keep the time as often as the checkpoint, which it belongs to."""
    if step % _EVERY == 0:
        clock.note()
