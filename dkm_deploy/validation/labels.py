"""Are these labels of these answers? What is asked before a metric decides anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isclose, isfinite
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dkm_deploy.errors import DkmError
from dkm_deploy.model.metric import accuracy, chance_warning, score, unfit_reason
from dkm_deploy.validation.task import Task, first

Labels = Tensor | NDArray[Any] | Sequence[Any]

_SAME = 1e-9  # relative; a metric may add in another order


def labels_array(labels: Labels | None, count: int) -> NDArray[Any] | None:
    """Labels as an array, one for each input along the first dimension.

    Raises:
        DkmError: they are no array, or not as many as inputs.
    """
    if labels is None:
        return None
    if isinstance(labels, Tensor):
        labels = labels.detach().cpu()
        found = (labels.float() if labels.dtype == torch.bfloat16 else labels).numpy()
    else:
        try:
            found = np.asarray(labels)
        except ValueError as error:
            raise DkmError(f"labels cannot be converted to an array: {error}") from error
    if not found.ndim:
        raise DkmError(f"labels are a single {type(labels).__name__}; give one for each input")
    if len(found) != count:
        raise DkmError(f"{len(found)} labels for {count} inputs")
    return found


def decide_metric(task: Task) -> Task:
    """A task whose metric has been tried on the original, or else on the reference.

    Labels that the metric is not asked of are left out, and ``undecided`` tells why; it also tells
    of an original that is right no more often than guessing, or that is random, whose losses would
    show nothing.

    Raises:
        DkmError: the user's own metric cannot be computed at all.
    """
    if task.labels is None:
        return task
    who, outputs = "original", task.reference
    if task.original is None:
        who = "reference"
    else:
        outputs = task.original.outputs
    scores = first(outputs)
    reason = None
    if task.metric is accuracy:
        nothing = None if np.isfinite(scores).any() else f"the {who} gives NaN or infinity alone"
        reason = unfit_reason(scores, task.labels) or nothing
    if reason:
        return replace(task, labels=None, undecided=reason)
    value, again = (score(task.metric, scores, task.labels) for _ in range(2))
    if not isfinite(value):
        reason = f"the metric of the {who} is {value}"
        return replace(task, labels=None, undecided=reason)
    if not isclose(value, again, rel_tol=_SAME):
        reason = f"the metric gives {value:.6g} and then {again:.6g} of the same outputs"
        return replace(task, labels=None, undecided=reason)
    if task.original and task.original.random:
        return replace(task, undecided=task.original.random)
    if task.original and task.metric is accuracy:
        return replace(task, undecided=chance_warning(value, scores, task.labels))
    return task
