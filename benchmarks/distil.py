"""A short distillation from the fp32 model's outputs, the same for all methods and peers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dkm_deploy.model.inputs import call
from dkm_deploy.training.loop.objective import distillation

_SOFTNESS = 4.0
_LEARNED = 0.01  # of the rate; the ratio of Sakthi et al. 2022


@dataclass(frozen=True)
class Course:
    """What a model learns, and how.

    Attributes:
        lessons: the inputs of each step, and the outputs to learn for them.
        steps: as many as there are lessons.
        loss: of outputs and those to learn, a scalar.
        optimizer: of groups of parameters, at a rate.
        rate: of the first step.
        norms: whether BatchNorms go by the batch.
        clip: largest 2-norm of the gradient.
    """

    lessons: Iterable[tuple[Any, Tensor]]
    steps: int
    loss: Callable[[Tensor, Tensor], Tensor]
    optimizer: Callable[[list[dict[str, Any]], float], torch.optim.Optimizer]
    rate: float
    norms: bool
    clip: float = math.inf


def scores(student: Tensor, teacher: Tensor) -> Tensor:
    """The loss of scores ``(n, classes)``."""
    return distillation(student, teacher, _SOFTNESS, 1)


def sgd(groups: list[dict[str, Any]], rate: float) -> torch.optim.Optimizer:
    """With momentum."""
    return torch.optim.SGD(groups, rate, momentum=0.9, weight_decay=1e-4)


def adam(groups: list[dict[str, Any]], rate: float) -> torch.optim.Optimizer:
    """With the usual moments."""
    return torch.optim.Adam(groups, rate)


def distil(
    model: nn.Module,
    course: Course,
    after_step: Callable[[], None],
    penalty: Callable[[], Tensor] | None = None,
) -> None:
    """Train by the course, with a rate that falls by a cosine.

    Args:
        model: in training mode from here on, but for BatchNorms that do not go by the batch.
        course: see there.
        after_step: called after each step of the optimiser.
        penalty: added to the loss, a scalar.
    """
    model.train()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.train(course.norms)
    optimizer = course.optimizer(_groups(model, course.rate), course.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, course.steps)
    for inputs, taught in course.lessons:
        loss = course.loss(call(model, inputs), taught)
        if penalty is not None:
            loss = loss + penalty()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        if course.clip < math.inf:
            nn.utils.clip_grad_norm_(model.parameters(), course.clip)
        optimizer.step()
        schedule.step()
        after_step()


def _groups(model: nn.Module, rate: float) -> list[dict[str, Any]]:
    """The parameters; the interval and scale that EWGS learns have a rate of their own."""
    named = dict(model.named_parameters())
    learned = [p for name, p in named.items() if name.endswith(".learned")]
    others = [p for name, p in named.items() if not name.endswith(".learned")]
    if not learned:
        return [{"params": others}]
    return [{"params": others}, {"params": learned, "lr": _LEARNED * rate, "weight_decay": 0.0}]
