"""How much a model's outputs mind an error of each weight: squared gradients, batch by batch."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from dkm_deploy.errors import DkmError
from dkm_deploy.model.calibration import Calibration, batch_outputs, batches, samples_in
from dkm_deploy.model.inputs import split_batch, to_device
from dkm_deploy.training.loop.objective import Loss, Objective


def squared_gradients(
    model: nn.Module,
    names: Collection[str],
    calibration: Calibration,
    loss: Loss | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """The diagonal of the Fisher information, streamed: one sum and one gradient a weight.

    A squared gradient is taken of the mean loss of each batch, times its samples; around a
    minimum that is the mean of the samples' squared gradients, whatever the size of a batch. Small
    batches estimate it better than few large ones.

    Without labels and without a loss, the gradient is that of ``sum(sign * output) / |output|``
    with random signs. Its mean square is the diagonal of ``J^T J / |output|**2``: what a small
    error of the weight adds to the squared relative error of the outputs (Hutchinson 1990).

    Args:
        model: a plain model; it is left as it was. It runs in eval mode.
        names: of the weights.
        calibration: see :data:`dkm_deploy.model.calibration.Calibration`.
        loss: ``loss(outputs, labels)``, a mean over the batch; None is cross entropy where there
            are labels, and the outputs' relative error elsewhere. Labels are None if a batch has
            none.
        seed: of the random signs.

    Returns:
        Sums of squared gradients by name, float32, of the weights' shapes. Zeros where no output
        depends on a weight.

    Raises:
        DkmError: there is no calibration data, the model does not run on it, or a gradient is not
            finite (of which weight, in which batch).
    """
    if not names:
        return {}
    model = copy.deepcopy(model).eval().requires_grad_(False)
    weights = {name: model.get_parameter(name).requires_grad_() for name in names}
    sums = {name: torch.zeros_like(w, dtype=torch.float32) for name, w in weights.items()}
    device = next(iter(weights.values())).device
    generator = torch.Generator(device).manual_seed(seed)
    for number, batch in enumerate(batches(calibration), 1):
        value = _value(model, to_device(batch, device), loss, generator, number)
        gradients = torch.autograd.grad(value, list(weights.values()), allow_unused=True)
        for (name, total), gradient in zip(sums.items(), gradients, strict=True):
            if gradient is None:
                continue
            dense = gradient.to_dense() if gradient.is_sparse else gradient
            if not torch.isfinite(dense).all():
                raise DkmError(f"{name}: its gradient is NaN or infinite in batch {number}")
            total.addcmul_(dense.float(), dense.float(), value=samples_in(batch))
        if not torch.isfinite(value):
            raise DkmError(f"the loss is {value.item()} in batch {number}; check its labels")
    return sums


def _value(
    model: nn.Module, batch: Any, loss: Loss | None, generator: torch.Generator, number: int
) -> Tensor:
    """What is differentiated: a scalar."""
    inputs, labels = split_batch(batch)
    outputs = batch_outputs(model, inputs, number)
    if loss is None and labels is None:
        value = _random_signs(outputs, generator)
    else:
        value = Objective(loss, None, 1.0, 1.0, -1).on_labels(outputs, labels)
    if not value.requires_grad:
        raise DkmError("the loss on the calibration data depends on no weight of the recipe")
    return value


def _random_signs(outputs: Any, generator: torch.Generator) -> Tensor:
    tensors = [t for t in pytree.tree_leaves(outputs) if torch.is_tensor(t)]
    total = torch.zeros((), device=generator.device)
    for output in (t.float() for t in tensors if t.is_floating_point()):
        bits = torch.randint(0, 2, output.shape, generator=generator, device=output.device)
        length = output.detach().norm().clamp(min=torch.finfo(torch.float32).tiny)
        total = total + ((2 * bits - 1) * output).sum() / length
    return total
