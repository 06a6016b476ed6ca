"""Does it still answer right? Answers of a model against those of the original."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dkm_deploy.model.metric import is_answer

_TOP = 5
_LISTED = 1000


@dataclass(frozen=True)
class Flip:
    """An input that is answered otherwise than by the original.

    Attributes:
        input: its place among the inputs, from 0.
        original: class that the original gives.
        answer: class that this model gives.
        label: the right class; None if the labels are not classes.
    """

    input: int
    original: int
    answer: int
    label: int | None


@dataclass(frozen=True)
class Answers:
    """Top classes of one model against the original's; None and empty where there are none.

    Attributes:
        agreement: share of inputs with the same top-1 class, 0 to 1.
        top5_overlap: mean share of the original's five top classes that are among the model's
            five; None where there are no more than five.
        flip_count: inputs with another top-1 class.
        flips: these inputs, the first 1000 of them.
        unanswered: inputs to which the original gives no answer (NaN, or an infinite highest
            score); no model agrees there.
        reason: why there is no agreement.
    """

    agreement: float | None = None
    top5_overlap: float | None = None
    flip_count: int | None = None
    flips: tuple[Flip, ...] = ()
    unanswered: int = 0
    reason: str = ""


def compare_answers(
    actual: NDArray[Any], original: NDArray[Any], labels: NDArray[Any] | None
) -> Answers:
    """Answers of ``(n, classes)`` scores against the original's; none if they are no such scores.

    A row that gives no answer in one of them never agrees.
    """
    if actual.shape != original.shape:
        return Answers(
            reason=f"outputs of shape {actual.shape}; the original's are {original.shape}"
        )
    if actual.ndim != 2 or actual.shape[1] < 2:
        return Answers(
            reason=f"outputs of shape {actual.shape} are not scores of classes, (n, classes): give "
            "labels and a metric instead"
        )
    known = is_answer(original)
    if not known.any():
        return Answers(
            unanswered=len(known), reason="the original answers no input: its scores are not finite"
        )
    both = known & is_answer(actual)
    ours, theirs = actual.argmax(-1), original.argmax(-1)
    flipped = np.flatnonzero((ours != theirs) | ~both)
    right = _classes(labels, len(ours))
    return Answers(
        agreement=(len(ours) - len(flipped)) / len(ours),
        top5_overlap=_overlap(actual, original, both) if actual.shape[1] > _TOP else None,
        flip_count=len(flipped),
        flips=tuple(
            Flip(int(i), int(theirs[i]), int(ours[i]), None if right is None else int(right[i]))
            for i in flipped[:_LISTED]
        ),
        unanswered=int((~known).sum()),
    )


def _classes(labels: NDArray[Any] | None, count: int) -> NDArray[Any] | None:
    if labels is None or labels.shape != (count,) or labels.dtype.kind not in "iu":
        return None
    return labels


def _overlap(actual: NDArray[Any], original: NDArray[Any], both: NDArray[np.bool_]) -> float:
    """The mean over inputs; where one of ``both`` gives no answer, it is 0."""
    ours, theirs = (
        np.argsort(-scores.astype(np.float64), -1, kind="stable")[:, :_TOP]
        for scores in (actual, original)
    )
    shares = (ours[:, :, None] == theirs[:, None, :]).any(1).mean(1)
    return float((shares * both).mean())
