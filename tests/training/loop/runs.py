"""A training run with everything that must survive a kill; also a program that can be killed.

``python -m tests.training.loop.runs CHECKPOINT RESULT LAG``: trains, sleeping LAG seconds a step,
and writes the final ``state_dict``.
"""

from __future__ import annotations

import io
import random
import sys
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader, Dataset

import dkm_deploy as dkm
from dkm_deploy.training.loop.fit import fit

QUIET = Console(file=io.StringIO())
EPOCHS, BATCHES = 3, 5
STEPS = EPOCHS * BATCHES
RECIPE = dkm.Recipe(dkm.PaletteSpec(2), schedule=dkm.Schedule(steps=STEPS, end=0.5))


class Noisy(Dataset):
    """Images with labels; noise from torch, numpy and Python, drawn between the steps."""

    def __init__(self):
        generator = torch.Generator().manual_seed(3)
        self.images = torch.randn(8 * BATCHES, 3, 6, 6, generator=generator)
        self.labels = torch.arange(8 * BATCHES) % 4

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        noise = torch.randn(()) + np.random.normal() + random.random()  # noqa: NPY002, S311
        return self.images[index] + 0.1 * float(noise), self.labels[index]


def plain(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(96, 4),
    )


def loader(generator=None):
    return DataLoader(Noisy(), batch_size=8, shuffle=True, generator=generator)


def by_epoch(epoch):
    """An order that depends on the epoch alone."""
    order = torch.randperm(8 * BATCHES, generator=torch.Generator().manual_seed(epoch))
    return (
        [torch.stack(x) for x in zip(*map(Noisy().__getitem__, some), strict=True)]
        for some in order.split(8)
    )


DATA = {
    "global": loader,
    "generator": lambda: loader(torch.Generator().manual_seed(7)),
    "function": lambda: by_epoch,
}


def run(checkpoint=None, *, data="global", seed=0, after_step=None, rate=0.01, **options):
    """Train; the model and what fit returned. ``seed`` must not matter after a resume."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    model, teacher = plain(seed), plain(5)
    dkm.prepare(model, RECIPE)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    options = {"epochs": EPOCHS, "every": 1, "clip_norm": 5.0, "teacher": teacher} | options
    result = fit(
        model,
        DATA[data](),
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS),
        checkpoint=checkpoint,
        after_step=after_step,
        console=QUIET,
        **options,
    )
    return model, result


class Killed(Exception):  # noqa: N818
    """Stands for a kill inside one process."""


def kill_at(last):
    def after_step(step, loss):
        if step == last:
            raise Killed

    return after_step


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


def linear(seed=0):
    torch.manual_seed(seed)
    return dkm.prepare(nn.Linear(16, 4), dkm.Recipe.uniform(2))


def batches(count=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = torch.randn(count, 8, 16, generator=generator)
    return [(batch, batch[:, :4].argmax(1)) for batch in made]


def fit_quietly(model, data, **options):
    optimizer = torch.optim.SGD(model.parameters(), lr=options.pop("lr", 0.1))
    return fit(model, data, **({"epochs": 1, "optimizer": optimizer, "console": QUIET} | options))


if __name__ == "__main__":
    path, lag = sys.argv[1:]
    torch.set_num_threads(1)
    run(Path(path), every=2, after_step=lambda step, loss: time.sleep(float(lag)))
