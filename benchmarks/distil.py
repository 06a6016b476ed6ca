"""A short distillation from the fp32 model's scores, the same for all methods and peers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from dkm_deploy.training.objective import distillation

RATE, SOFTNESS = 0.02, 4.0
_LEARNED_RATE = 0.01 * RATE  # the ratio of Sakthi et al. 2022

Lessons = Iterable[tuple[Tensor, Tensor]]
"""Batches of normalised images ``(n, 3, h, w)`` and the scores ``(n, classes)`` to learn."""


def distil(
    model: nn.Module,
    lessons: Lessons,
    steps: int,
    after_step: Callable[[], None],
    penalty: Callable[[], Tensor] | None = None,
) -> None:
    """SGD with momentum and a cosine over ``steps``, one for each lesson.

    Args:
        model: in training mode from here on.
        lessons: ``steps`` batches.
        steps: of the optimiser.
        after_step: called after each.
        penalty: added to the loss, a scalar.
    """
    model.train()
    optimizer = torch.optim.SGD(_groups(model), RATE, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for images, taught in lessons:
        loss = distillation(model(images), taught, SOFTNESS, 1)
        if penalty is not None:
            loss = loss + penalty()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        after_step()


def _groups(model: nn.Module) -> list[dict[str, Any]]:
    """The parameters; the interval and scale that EWGS learns have a rate of their own."""
    named = dict(model.named_parameters())
    learned = [p for name, p in named.items() if name.endswith(".learned")]
    others = [p for name, p in named.items() if not name.endswith(".learned")]
    if not learned:
        return [{"params": others}]
    return [{"params": others}, {"params": learned, "lr": _LEARNED_RATE, "weight_decay": 0.0}]
