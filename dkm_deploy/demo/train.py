"""A plain PyTorch training loop, as a user would bring it along."""

from __future__ import annotations

from collections.abc import Callable

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional

from dkm_deploy._support.progress import track
from dkm_deploy.demo.data import Digits

_BATCH = 64


def train(
    model: nn.Module,
    data: Digits,
    epochs: int,
    rate: float,
    after_step: Callable[[], None],
    what: str,
    console: Console,
) -> None:
    """Train with Adam and a cosine learning rate on images shifted by up to one pixel."""
    model.train()
    steps = steps_of(data, epochs)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in track(range(epochs), what, console):
        for batch in _batches(data, epoch):
            scores = model(_shift_images(data.train_images[batch]))
            loss = functional.cross_entropy(scores, data.train_labels[batch])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            after_step()
    model.eval()


def steps_of(data: Digits, epochs: int) -> int:
    """Optimiser steps that ``epochs`` take."""
    return epochs * len(_batches(data, 0))


def _batches(data: Digits, epoch: int) -> list[Tensor]:
    count = len(data.train_labels)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(epoch))
    return [order[start : start + _BATCH] for start in range(0, count, _BATCH)]


def _shift_images(images: Tensor) -> Tensor:
    """The images moved by -1 to 1 pixels in both directions, the whole batch alike."""
    down, right = torch.randint(0, 3, (2,)).tolist()
    return functional.pad(images, (1, 1, 1, 1))[..., down : down + 8, right : right + 8]
