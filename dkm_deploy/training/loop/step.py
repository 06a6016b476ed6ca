"""One training step: batch in, loss out, and nothing that is not finite gets through."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from dkm_deploy.errors import DkmError
from dkm_deploy.model.inputs import split_batch, to_device
from dkm_deploy.training.loop.objective import Objective
from dkm_deploy.training.prepare import prepared_weights, step

_WAY_OUT = "lower the learning rate or set clip_norm, and look at the batch"


@dataclass(frozen=True)
class TrainingStep:
    """Makes one optimiser step of a prepared model.

    Attributes:
        model: to be trained.
        optimizer: of its parameters.
        scheduler: of the learning rate, or None.
        objective: what to minimise.
        clip_norm: largest 2-norm of the gradient, or None.
    """

    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler | None
    objective: Objective
    clip_norm: float | None

    def __call__(self, batch: Any, number: int) -> float:
        """Train on a batch; the loss before the step.

        Args:
            batch: see :func:`dkm_deploy.fit`.
            number: of this step, from 1, for messages.

        Raises:
            DkmError: the loss or a gradient is not finite (no weight has changed then), or a
                parameter is not after the step.
        """
        if not self.model.training:
            self.model.train()
        inputs, labels = split_batch(to_device(batch, next(self.model.parameters()).device))
        loss = self.objective(self.model, inputs, labels)
        value = loss.item()
        if not math.isfinite(value):
            raise DkmError(f"the loss is {value} in step {number}; {_WAY_OUT}")
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self._guard_gradients(number)
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()
        step(self.model)
        self._guard_parameters(number)
        return value

    def _guard_gradients(self, number: int) -> None:
        """Clip the gradients, after a look at them while the weights are still good."""
        found = {n: p.grad for n, p in named_parameters(self.model).items() if p.grad is not None}
        # A sparse embedding's gradient: there is no norm but of its values.
        gradients = {n: g.coalesce().values() if g.is_sparse else g for n, g in found.items()}
        norm = get_total_norm(gradients.values())
        if not torch.isfinite(norm):
            raise DkmError(
                f"{_not_finite(gradients)}: the gradient is NaN or infinite in step {number}; "
                f"{_WAY_OUT}"
            )
        if self.clip_norm is not None:
            clip_grads_with_norm_(self.model.parameters(), self.clip_norm, norm)

    def _guard_parameters(self, number: int) -> None:
        """``advance`` looks at the prepared weights; this at biases, norms and what else trains."""
        prepared = {layer.name for layer in prepared_weights(self.model)}
        others = {
            n: p.detach() for n, p in named_parameters(self.model).items() if n not in prepared
        }
        if not torch.isfinite(get_total_norm(others.values())):
            raise DkmError(
                f"{_not_finite(others)}: NaN or infinity after step {number}; {_WAY_OUT}"
            )


def named_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters, prepared ones under the name they had before."""
    alone = [layer for layer in prepared_weights(model) if not layer.is_stacked]
    prepared = {id(layer.weight): layer.name for layer in alone}
    return {prepared.get(id(p), name): p for name, p in model.named_parameters()}


def _not_finite(tensors: Mapping[str, Tensor]) -> str:
    """Which of them are not finite; if none is alone, their common norm overflows."""
    names = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if not names:
        return "all parameters together"
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
