"""A plain training loop: progress, distillation, and a run that can be killed at any step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from torch import Tensor, nn
from torch import distributed as dist
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from dkm_deploy._support.argument_checks import function, integer, real, record, short, usage
from dkm_deploy._support.paths import path_of
from dkm_deploy._support.progress import meter
from dkm_deploy.errors import ArgumentError, DkmError
from dkm_deploy.model.calibration import is_labelled_batch
from dkm_deploy.nn_utils.model_check import model_of
from dkm_deploy.nn_utils.state_guard import eval_mode
from dkm_deploy.training.loop.epochs import Data, Run
from dkm_deploy.training.loop.objective import Loss, Objective
from dkm_deploy.training.loop.step import TrainingStep
from dkm_deploy.training.prepare import prepared_weights, require_prepared


@dataclass(frozen=True)
class FitResult:
    """Result of a training run with :func:`dkm_deploy.fit`.

    Attributes:
        steps: optimizer steps since the start, including those before a resume.
        last_loss: loss of the last step.
        resumed_from: step of the checkpoint from which the run continued; None for a new run.

    Example:
        >>> model = dkm.prepare(nn.Linear(8, 4), 2)
        >>> batch = (torch.ones(1, 8), torch.tensor([3]))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        >>> result = dkm.fit(model, [batch], epochs=2, optimizer=optimizer)
        >>> result.steps, result.resumed_from
        (2, None)
    """

    steps: int
    last_loss: float
    resumed_from: int | None


@usage("dkm.fit(model, loader, epochs=3, optimizer=optimizer)")
def fit(
    model: nn.Module,
    data: Data,
    *,
    epochs: int,
    optimizer: Optimizer,
    scheduler: LRScheduler | None = None,
    loss: Loss | None = None,
    teacher: nn.Module | None = None,
    temperature: float = 4.0,
    teacher_weight: float = 0.9,
    class_dim: int = -1,
    clip_norm: float | None = None,
    checkpoint: str | Path | None = None,
    every: int = 100,
    after_step: Callable[[int, float], None] | None = None,
    console: Console | None = None,
) -> FitResult:
    """Train a prepared model in one process, and leave it in eval mode.

    A batch is ``(inputs, labels)``; with a teacher it may be the inputs alone. Inputs are a tensor
    or a mapping of keyword arguments, either also in a tuple of one; a longer tuple holds
    positional arguments. Batches are moved to the model's device.

    With ``checkpoint``, a run that was stopped continues from that file when ``fit`` is called
    again with the same arguments, and gives the same bits. For this it repeats the shuffling of the
    epoch, which takes one pass over the batches so far. Therefore the order of ``data`` must come
    from the global random states (of torch, numpy, Python), from the generator of a DataLoader or
    of its sampler, or, if ``data`` is a function, from the epoch. Random numbers of persistent
    DataLoader workers cannot be repeated.

    Args:
        model: a model from ``dkm.prepare``.
        data: batches that can be iterated once per epoch, or a function from the epoch number to
            its batches.
        epochs: number of passes over the data.
        optimizer: optimizer of the model's parameters.
        scheduler: learning rate scheduler, stepped after every optimizer step.
        loss: ``loss(outputs, labels)``, a scalar tensor; the default is cross entropy.
        teacher: full-precision model for distillation, such as a copy made before ``prepare``. It
            runs in eval mode and does not change.
        temperature: temperature of the distillation.
        teacher_weight: share of the distillation in the loss if there are labels too, 0 to 1.
        class_dim: dimension of the outputs that holds the classes, for cross entropy and
            distillation; for images ``(n, classes, h, w)`` it is 1.
        clip_norm: largest 2-norm of the gradient. Weights between two centroids can have gradients
            that are many times larger than the others.
        checkpoint: file for the whole state of the run, replaced every ``every`` steps.
        every: steps between two checkpoints; one is also written at the start and at the end.
        after_step: called with the number of steps done and the loss. It is called again for steps
            that are repeated after a resume.
        console: where progress is shown; the default is standard error.

    Returns:
        The number of steps and the last loss.

    Raises:
        DkmError: an argument does not fit; the checkpoint is damaged or of another run (then
            nothing changes); or the loss, a gradient or a weight is not finite (the message names
            the step and the parameter). The last checkpoint is then kept. To continue from it with
            other settings, load ``torch.load(checkpoint)["model"]`` and give a new path.

    Example:
        >>> model = dkm.prepare(nn.Linear(8, 4), 2)
        >>> batches = [(torch.randn(16, 8), torch.randint(4, (16,))) for _ in range(5)]
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        >>> dkm.fit(model, batches, epochs=2, optimizer=optimizer).steps
        10
    """
    integer("epochs", epochs, 1)
    integer("every", every, 1)
    if clip_norm is not None:
        real("clip_norm", clip_norm, above=0)
    function("after_step", after_step)
    _check_data(data)
    _check_parts(model, optimizer, scheduler, teacher)
    objective = Objective(loss, teacher, temperature, teacher_weight, class_dim)
    step = TrainingStep(model, optimizer, scheduler, objective, clip_norm)
    run = Run(step, data, every, after_step)
    if checkpoint is not None:
        options = {
            "epochs": epochs,
            "clip_norm": clip_norm,
            "class_dim": class_dim,
            "temperature": temperature,
            "teacher_weight": teacher_weight,
        }
        run.keep_in(path_of(checkpoint, "checkpoint"), options)
    modes = nullcontext() if teacher is None else eval_mode(teacher)
    with (
        modes,
        meter("fit", epochs, console or Console(stderr=True), done=run.position.epoch) as show,
    ):
        while run.position.epoch < epochs:
            run.epoch(show)
    run.save()
    model.eval()
    return FitResult(run.position.step, run.position.loss, run.resumed_from)


def _check_data(data: Any) -> None:
    """Refuse what gives no batches, one after the other."""
    if is_labelled_batch(data):
        raise ArgumentError("data is one batch; give a list of such batches: [(inputs, labels)]")
    wrong = isinstance(data, (str, bytes, Tensor, np.ndarray, Mapping))
    if wrong or not (callable(data) or isinstance(data, Iterable)):
        raise ArgumentError(f"data is {short(data)}; give batches, or a function of the epoch")


def _check_parts(
    model: nn.Module,
    optimizer: Optimizer,
    scheduler: LRScheduler | None,
    teacher: nn.Module | None,
) -> None:
    """Refuse what would train something else than meant, or nothing."""
    layers = require_prepared(model)
    record("optimizer", optimizer, Optimizer)
    if scheduler is not None:
        record("scheduler", scheduler, LRScheduler)
    if teacher is not None:
        model_of(teacher, "teacher")
    ours = {id(parameter) for parameter in model.parameters()}
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not held & ours:
        raise DkmError(
            "the optimizer holds none of the model's parameters; make it from model.parameters()"
        )
    for layer in layers:
        if any(p.requires_grad and id(p) not in held for p in layer.soft.parameters()):
            raise DkmError(
                f"{layer.name}: the optimizer lacks the parameters that {layer.soft.method} adds; "
                "make it after dkm.prepare"
            )
    if isinstance(scheduler, ReduceLROnPlateau):
        raise DkmError("scheduler ReduceLROnPlateau needs a metric; give one that counts steps")
    if scheduler is not None and scheduler.optimizer is not optimizer:
        raise DkmError(
            "the scheduler belongs to another optimizer; make it from the one given here"
        )
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        raise DkmError(
            f"fit trains in one process, and there are {dist.get_world_size()}; write your own "
            "loop with dkm.step"
        )
    if teacher is not None and any(prepared_weights(teacher)):
        raise DkmError("the teacher is a prepared model; copy it before dkm.prepare")
    if teacher is not None and any(id(parameter) in ours for parameter in teacher.parameters()):
        raise DkmError("the teacher shares parameters with the model; give a copy of its own")
