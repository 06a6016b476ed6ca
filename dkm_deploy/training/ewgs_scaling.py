"""The delta of element-wise gradient scaling from the curvature of the loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from dkm_deploy._support.argument_checks import usage
from dkm_deploy.errors import DkmError, reason_of
from dkm_deploy.nn_utils.state_guard import eval_mode, keep_random_state, rewind_state
from dkm_deploy.training.fsdp import gather
from dkm_deploy.training.methods.protocol import LearnedLevelsMethod
from dkm_deploy.training.prepare import PreparedWeight, require_prepared

_LARGE = 3  # standard deviations: the size that a large gradient has


@usage("dkm.update_ewgs_scaling(model, lambda: loss(model(inputs), labels))")
@keep_random_state()
def update_ewgs_scaling(
    model: nn.Module, loss: Callable[[], Tensor], *, seed: int = 0
) -> dict[str, float]:
    """Measure and set the delta of every weight of a model that trains with EWGS.

    ``delta = max(0, Tr(H) / N / G)`` (Lee, Kim and Ham, CVPR 2021, section 3.3). H is the Hessian
    of the loss with respect to the N levels of a weight, which lie in 0..1; its trace is estimated
    with one random vector of signs (Hutchinson). G is three standard deviations of the gradients of
    the loss with respect to the levels. The authors start with a delta of 0 and measure it every 10
    epochs of CIFAR-10, and every epoch of ImageNet. The deltas are in the model's ``state_dict``.

    Args:
        model: prepared with ``method="ewgs"``. It runs in eval mode; nothing else of it changes.
        loss: runs the model on a batch and returns the loss, a scalar that can be differentiated
            twice. This takes about three times the memory of a training step.
        seed: seed of the random signs.

    Returns:
        The delta of each weight by qualified name.

    Raises:
        DkmError: a weight trains with another method, or the loss is not finite or cannot be
            differentiated twice.

    Example:
        >>> model = dkm.prepare(nn.Linear(8, 4), 2, method="ewgs")
        >>> inputs = torch.randn(4, 8)
        >>> list(dkm.update_ewgs_scaling(model, lambda: model(inputs).square().mean()))
        ['weight']
    """
    layers = require_prepared(model)
    for layer in layers:
        if not isinstance(layer.soft.method, LearnedLevelsMethod):
            raise DkmError(f"{layer.name}: its method is {layer.soft.method}, which has no delta")
    levels = [_levels(layer) for layer in layers]
    with _with_levels(model, layers, levels):
        gradients, curvatures = _derivatives(loss, levels, seed)
    found = {
        layer.name: _delta(layer.name, *pair)
        for layer, *pair in zip(layers, gradients, curvatures, strict=True)
    }
    for layer in layers:
        cast(Tensor, layer.soft.scaling).fill_(found[layer.name])
    return found


def _levels(layer: PreparedWeight) -> Tensor:
    """Of each weight, from 0 to 1; a leaf ``(groups, count, 1)``."""
    with torch.no_grad():
        assigned = layer.soft.assign(layer.soft.vectors(gather(layer.weight)))
        levels = assigned.unsqueeze(-1).to(torch.float32) / (layer.soft.clustered.clusters - 1)
    return levels.requires_grad_()


@contextmanager
def _with_levels(
    model: nn.Module, layers: Sequence[PreparedWeight], levels: Sequence[Tensor]
) -> Iterator[None]:
    """The model in eval mode, with these levels for its weights."""
    try:
        with eval_mode(model), rewind_state(model):
            for layer, held in zip(layers, levels, strict=True):
                layer.soft.held = held
            yield
    finally:
        for layer in layers:
            layer.soft.held = None


def _derivatives(
    loss: Callable[[], Tensor], levels: Sequence[Tensor], seed: int
) -> tuple[Sequence[Tensor], list[Tensor]]:
    """The gradients by the levels, and the Hessian's products with signs, times these signs."""
    generator = torch.Generator().manual_seed(seed)
    signs = [2.0 * torch.randint(2, one.shape, generator=generator) - 1 for one in levels]
    signs = [sign.to(one.device) for sign, one in zip(signs, levels, strict=True)]
    try:
        with torch.enable_grad():
            gradients = torch.autograd.grad(
                loss(), levels, create_graph=True, materialize_grads=True
            )
        products = torch.autograd.grad(gradients, levels, signs, materialize_grads=True)
    except RuntimeError as error:
        raise DkmError(f"the loss cannot be differentiated twice: {reason_of(error)}") from error
    return gradients, [sign * product for sign, product in zip(signs, products, strict=True)]


def _delta(name: str, gradient: Tensor, curvature: Tensor) -> float:
    large = _LARGE * float(gradient.detach().std(correction=0))
    mean = float(curvature.mean())
    if not math.isfinite(large + mean):
        raise DkmError(f"{name}: the loss's derivatives by its levels are not finite")
    return max(0.0, mean / large) if large else 0.0
