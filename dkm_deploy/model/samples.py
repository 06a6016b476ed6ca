"""Samples of inputs: how many there are, and some of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as pytree

from dkm_deploy._support.argument_checks import short
from dkm_deploy.errors import DkmError
from dkm_deploy.model.inputs import Inputs, arguments
from dkm_deploy.model.steps import Steps


def rows(inputs: Inputs | Steps, start: int, stop: int) -> Inputs:
    """Samples ``start`` to ``stop`` of inputs, or of the first step; no other value is cut.

    Inputs that do not share their first dimension are given whole.
    """
    inputs = next(iter(inputs)) if isinstance(inputs, Steps) else inputs
    if not share_samples(inputs):
        return inputs
    held = {id(leaf) for leaf in _samples(inputs)}
    block = pytree.tree_map(lambda leaf: leaf[start:stop] if id(leaf) in held else leaf, inputs)
    args, kwargs = arguments(block)
    return kwargs or args


def share_samples(inputs: Inputs) -> bool:
    """Whether all tensors have samples along their first dimension.

    A state ``(layers, n, width)`` or a mask ``(t, t)`` beside ``(n, t, width)`` has not.
    """
    return len({len(leaf) for leaf in _samples(inputs)}) == 1


def sample_count(inputs: Inputs | Steps) -> int:
    """Length of the first dimension of the first tensor; of steps, all of theirs.

    Numbers alone, tensors without a dimension, are one sample.

    Raises:
        DkmError: there is no tensor, or one has no elements along its first dimension.
    """
    if isinstance(inputs, Steps):
        return sum(_samples_of_step(step) for step in inputs)
    arguments(inputs)
    check_not_empty(inputs)
    counts = [len(leaf) for leaf in _samples(inputs)]
    if counts:
        return counts[0]
    if any(isinstance(leaf, (Tensor, np.ndarray)) for leaf in pytree.tree_leaves(inputs)):
        return 1
    raise DkmError("the inputs hold no tensor; give at least one")


def check_not_empty(inputs: Inputs) -> None:
    """Raise DkmError for inputs without any sample, on which nothing can be compared."""
    if any(len(leaf) == 0 for leaf in _samples(inputs)):
        raise DkmError("the input tensors have 0 samples (first dimension); give at least 1")


def check_labels(inputs: Inputs, labels: Any) -> None:
    """Raise DkmError unless there are none, or one for each sample."""
    if labels is None:
        return
    if np.ndim(labels) == 0:
        raise DkmError(f"labels are {short(labels)}; give one for each input")
    if len(labels) != sample_count(inputs):
        raise DkmError(f"{len(labels)} labels for {sample_count(inputs)} inputs")


def _samples(inputs: Inputs) -> list[Tensor | NDArray[Any]]:
    """What holds one sample after the other: tensors; arrays only where there is no tensor."""
    leaves = [x for x in pytree.tree_leaves(inputs) if isinstance(x, (Tensor, np.ndarray))]
    found = [leaf for leaf in leaves if leaf.ndim]
    return [leaf for leaf in found if isinstance(leaf, Tensor)] or found


def _samples_of_step(step: Inputs) -> int:
    """Length of the first tensor; others, such as positions, may have another one."""
    return next((len(t) for t in pytree.tree_leaves(arguments(step)) if np.ndim(t)), 1)
