"""Calibration data: samples that show what a model is used for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from dkm_deploy._support.argument_checks import short
from dkm_deploy.errors import ArgumentError, DkmError, reason_of
from dkm_deploy.model.inputs import call, from_numpy, split_batch
from dkm_deploy.nn_utils.state_guard import own_copies, rewind_state

Calibration = Tensor | NDArray[Any] | Mapping[str, Any] | Iterable[Any]
"""Batches as :func:`dkm_deploy.fit` takes them: ``(inputs, labels)``, or the inputs alone; or all
samples at once, a tensor or a mapping of keyword inputs, which are cut into batches of 16. Numpy
arrays stand for tensors."""

_AT_ONCE = (Tensor, np.ndarray, Mapping)

BATCH = 16
"""Samples of a batch, where the user has made none."""


def batches(calibration: Calibration | None, size: int = BATCH) -> Iterator[Any]:
    """The batches of calibration data for a model, of tensors.

    Args:
        calibration: as the user gave it.
        size: samples of a batch, where the user has made none.

    Raises:
        DkmError: there is none, or it is no collection.
    """
    if isinstance(calibration, _AT_ONCE):
        calibration = in_batches(_from_numpy(calibration), size)
    return map(_from_numpy, _checked(calibration))


def uncut_batches(calibration: Calibration | None) -> Iterator[tuple[Any, Any]]:
    """Inputs and labels as the user has cut them, for a file; all samples at once are one batch.

    Labels are None where a batch has none. Raises as :func:`batches`.
    """
    given = [calibration] if isinstance(calibration, _AT_ONCE) else calibration
    return map(split_batch, _checked(given))


def _checked(calibration: Iterable[Any] | None) -> Iterator[Any]:
    if calibration is None:
        raise ArgumentError(
            "calibration data is missing: give batches of (inputs, labels) or of inputs"
        )
    if isinstance(calibration, (str, PathLike)) or not isinstance(calibration, Iterable):
        raise ArgumentError(
            f"calibration is {short(calibration)}; give a tensor or batches of (inputs, labels)"
        )
    if is_labelled_batch(calibration):
        raise ArgumentError(
            "calibration is a pair of inputs and labels; give a list of such batches: "
            "[(inputs, labels)]"
        )
    number = 0
    for number, batch in enumerate(calibration, 1):  # noqa: B007  # counted for the check below
        yield batch
    if not number:
        raise DkmError("calibration has no batch; a generator can be used once only")


def is_labelled_batch(data: Any) -> bool:
    """Whether data is one batch with its labels, and not a collection of two batches."""
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        return False
    inputs, labels = data
    if not isinstance(labels, (Tensor, np.ndarray)):
        return False
    return isinstance(inputs, Mapping) or (getattr(inputs, "ndim", 0) > 1 and labels.ndim == 1)


def _from_numpy(batch: Any) -> Any:
    return pytree.tree_map(_tensor, dict(batch) if isinstance(batch, Mapping) else batch)


def _tensor(leaf: Any) -> Any:
    """By type() alone, so that labels which nobody needs are not touched."""
    return from_numpy(leaf) if issubclass(type(leaf), (np.ndarray, np.generic)) else leaf


def in_batches(samples: Any, size: int = BATCH) -> Iterator[Any]:
    """Nested tensors of n samples, along the first dimension, as nested batches."""
    leaves, spec = pytree.tree_flatten(samples)
    counts = {len(leaf) for leaf in leaves if torch.is_tensor(leaf) and leaf.ndim}
    if len(counts) != 1:
        raise DkmError(
            f"calibration tensors have {sorted(counts)} samples; all must have the same number"
        )
    for start in range(0, counts.pop(), size):
        part = [t[start : start + size] if torch.is_tensor(t) and t.ndim else t for t in leaves]
        yield pytree.tree_unflatten(part, spec)


def batch_outputs(model: nn.Module, inputs: Any, number: int) -> Any:
    """What a model returns on the inputs of a batch, each time from its own buffers.

    Raises:
        DkmError: it does not run on them.
    """
    try:
        with rewind_state(model):
            return call(model, own_copies(inputs))
    except Exception as error:  # any error of the user's own forward
        raise DkmError(
            f"the model does not run on calibration batch {number}: {reason_of(error)}"
        ) from error


def tensors_of(model: nn.Module, inputs: Any, number: int) -> list[Tensor]:
    """The tensors among what :func:`batch_outputs` gives, in float32."""
    outputs = batch_outputs(model, inputs, number)
    return [t.float() for t in pytree.tree_leaves(outputs) if torch.is_tensor(t)]


def samples_in(batch: Any) -> int:
    """Samples of a batch: the length of its first tensor."""
    tensors = (leaf for leaf in pytree.tree_leaves(batch) if torch.is_tensor(leaf) and leaf.ndim)
    first = next(tensors, None)
    return 1 if first is None else len(first)
