"""What counts of a model's answers where there are labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dkm_deploy.errors import DkmError, reason_of

Metric = Callable[[NDArray[Any], NDArray[Any]], float]
"""``metric(first output, labels)``, more is better."""

_ELSE = "or give metric="


def accuracy(output: NDArray[Any], labels: NDArray[Any]) -> float:
    """Top-1 accuracy in percent of scores ``(n, classes)`` against integer labels ``(n,)``.

    Scores of several places, ``(n, .., classes)`` or ``(n, classes, ..)``, are taken with one label
    for each place. What is no :func:`is_answer` is not right.

    Raises:
        DkmError: such labels are not for such scores.
    """
    return 100 * float(np.mean(hits(output, labels)))


def hits(output: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Where the top-1 answer is the label, of the labels' shape. Raises as :func:`accuracy`."""
    reason = unfit_reason(output, labels)
    if reason:
        raise DkmError(reason)
    scores = np.moveaxis(output, _class_axes(output, labels)[0], -1)
    right: NDArray[np.bool_] = (scores.argmax(-1) == labels) & is_answer(scores)
    return right


def is_answer(scores: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of ``(.., classes)`` scores are an answer: no NaN, and a finite highest score.

    A class may be ruled out by minus infinity, as models mask what cannot be.
    """
    highest = scores.max(-1)  # NaN if one of them is
    found: NDArray[np.bool_] = np.isfinite(highest)
    return found


def chance_warning(value: float, output: NDArray[Any], labels: NDArray[Any]) -> str:
    """What is odd about a model's :func:`accuracy` as it is; empty if it is above chance."""
    chance = 100 / output.shape[_class_axes(output, labels)[0]]
    if value > chance:
        return ""
    numbered = ", numbered from 0 (none is 0)" if labels.min() > 0 else ""
    return (
        f"the original is right in {value:.4g} %, no more than guessing ({chance:.4g} %): are "
        f"these labels of its classes{numbered}, in the order of the inputs?"
    )


def unfit_reason(output: NDArray[Any], labels: NDArray[Any]) -> str | None:
    """Why top-1 accuracy is not asked of an output and labels, and what to do; None if it is."""
    shape = _unfit_shape_reason(output, labels)
    if shape:
        return shape
    if labels.dtype.kind not in "biuf":
        return f"labels are {labels.dtype}; top-1 accuracy takes class numbers from 0, {_ELSE}"
    classes = int(output.shape[_class_axes(output, labels)[0]])
    if labels.dtype.kind == "b" and classes != 2:
        return f"labels are true or false, and there are {classes} classes: give their numbers"
    if not np.isfinite(labels).all():
        return f"{int((~np.isfinite(labels)).sum())} of {labels.size} labels are NaN or infinite"
    if labels.dtype.kind == "f" and (labels != np.floor(labels)).any():
        broken = labels[labels != np.floor(labels)].flat[0]
        return f"labels such as {broken:g} are no class numbers: give whole ones, {_ELSE}"
    low, high = int(labels.min()), int(labels.max())
    if low >= 0 and high < classes:
        return None
    remedy = f"give the outputs' class numbers, {_ELSE} that leaves the others out"
    if low > 0 and high == classes:
        remedy = "they are numbered from 1: subtract 1"
    return f"labels are {low} to {high}, and the outputs' classes are 0 to {classes - 1}: {remedy}"


def score(metric: Metric, output: NDArray[Any], labels: NDArray[Any]) -> float:
    """A metric as one number, from copies: it may write into what it is given.

    Raises:
        DkmError: it fails, or gives something else.
    """
    try:
        found = metric(output.copy(), labels.copy())
    except Exception as error:  # of the user's own metric
        told = str(error) if isinstance(error, DkmError) else reason_of(error)
        raise DkmError(f"the metric cannot be computed: {told}") from error
    try:
        # numpy does not turn an array of one number into it, but for one without dimensions.
        return float(found.item() if hasattr(found, "item") else found)
    except Exception as error:  # whatever it gave
        what = f"a {type(found).__name__}" if found is not None else "None"
        raise DkmError(f"the metric cannot be computed: it gave {what}, not a number") from error


def _unfit_shape_reason(output: NDArray[Any], labels: NDArray[Any]) -> str | None:
    made, given = f"outputs of shape {output.shape}", f"labels of shape {labels.shape}"
    axes = _class_axes(output, labels)
    if set(output.shape[1:]) <= {1} or [output.shape[axis] for axis in axes] == [1]:
        return (
            f"{made} have no scores of classes: give metric=, such as "
            "lambda y, t: 100 * ((y > 0).ravel() == t.ravel()).mean() for the logits of yes or no"
        )
    if len(axes) > 1:
        return f"{made} and {given} do not tell which dimension holds the classes: give metric="
    if axes:
        return None
    if labels.shape == (*output.shape[:-1], 1):
        return f"{given} have one dimension too many for {made}: give labels.squeeze(-1)"
    if labels.shape == output.shape:
        return f"{given} are not class numbers, as {made} need them: if one-hot, give their argmax"
    return f"{given} do not fit {made}: give one label for each answer, {_ELSE}"


def _class_axes(output: NDArray[Any], labels: NDArray[Any]) -> list[int]:
    """The dimensions of an output that hold classes, by what the labels lack: the last, the 2nd."""
    shape = output.shape
    last = labels.shape == shape[:-1]
    second = output.ndim > 2 and labels.shape == shape[:1] + shape[2:]
    return [axis for axis, fits in ((output.ndim - 1, last), (1, second)) if fits]
