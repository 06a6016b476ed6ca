"""What a training step minimises: a loss on labels, distillation from a teacher, or both."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dkm_deploy._support.argument_checks import function, integer, real
from dkm_deploy.errors import DkmError, reason_of
from dkm_deploy.model.inputs import call
from dkm_deploy.nn_utils.state_guard import own_copies, rewind_state

Loss = Callable[[Any, Any], Tensor]
"""``loss(outputs, labels)``, a scalar tensor."""


@dataclass(frozen=True)
class Objective:
    """The loss of one batch.

    Attributes:
        loss: of outputs and labels; None is cross entropy.
        teacher: distil from it; None leaves the loss on labels alone.
        temperature: by which the scores of both are divided before their softmax.
        teacher_weight: share of distillation where there are labels too; the rest is the loss on
            labels. A batch without labels is distilled alone.
        class_dim: the dimension of the outputs that holds the classes.
    """

    loss: Loss | None
    teacher: nn.Module | None
    temperature: float
    teacher_weight: float
    class_dim: int

    def __post_init__(self) -> None:
        function("loss", self.loss)
        real("temperature", self.temperature, above=0, most=sys.float_info.max)
        real("teacher_weight", self.teacher_weight, above=0, most=1)
        integer("class_dim", self.class_dim, -8, 8)

    def __call__(self, model: nn.Module, inputs: Any, labels: Any) -> Tensor:
        """Run the model, and the teacher without gradients; a scalar.

        Raises:
            DkmError: there are neither labels nor a teacher, the labels are not for cross entropy,
                the loss is not a scalar, or the outputs are not scores.
        """
        outputs = call(model, own_copies(inputs))
        if self.teacher is None:
            if labels is None:
                raise DkmError("a batch has no labels: give (inputs, labels) or a teacher")
            return self.on_labels(outputs, labels)
        with torch.no_grad(), rewind_state(self.teacher):
            taught = call(self.teacher, own_copies(inputs))
        distilled = distillation(
            _scores(outputs), _scores(taught), self.temperature, self.class_dim
        )
        if labels is None or self.teacher_weight == 1:
            return distilled
        on_labels = self.on_labels(outputs, labels)
        return self.teacher_weight * distilled + (1 - self.teacher_weight) * on_labels

    def on_labels(self, outputs: Any, labels: Any) -> Tensor:
        """The loss on labels alone, a scalar; raises as a call does, and for unfit labels."""
        if self.loss is not None:
            return _scalar(self.loss(outputs, labels))
        scores = _scores(outputs).movedim(self.class_dim, 1)
        try:
            return functional.cross_entropy(scores, labels)
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            told = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
            raise DkmError(
                f"cross entropy does not take labels {told} with scores {tuple(scores.shape)} "
                f"({reason_of(error)}): give int64 class numbers from 0, one for each answer, or "
                "another loss"
            ) from error


def distillation(student: Tensor, teacher: Tensor, temperature: float, class_dim: int) -> Tensor:
    """``T**2 * KL(softmax(teacher / T) || softmax(student / T))``, mean over all but the classes.

    As Hinton et al. 2015 have it: the factor keeps the gradient's size when T changes.

    Args:
        student: scores, of any rank.
        teacher: scores of the same shape.
        temperature: T.
        class_dim: the dimension that holds the classes.

    Raises:
        DkmError: the shapes differ.
    """
    if student.shape != teacher.shape:
        raise DkmError(
            f"the teacher's outputs have shape {tuple(teacher.shape)}, the model's "
            f"{tuple(student.shape)}; they must be equal"
        )
    ours, theirs = ((s / temperature).log_softmax(class_dim) for s in (student, teacher))
    total = functional.kl_div(ours, theirs, reduction="sum", log_target=True)
    return total * (temperature**2 * student.shape[class_dim] / student.numel())


def _scores(outputs: Any) -> Tensor:
    """The scores themselves, or the ``logits`` of a record as Hugging Face models return it."""
    scores = getattr(outputs, "logits", outputs)
    if not isinstance(scores, Tensor):
        raise DkmError(
            f"the model returns a {type(outputs).__name__}, not scores or a record with logits; "
            "without a teacher give loss=, with one wrap both models"
        )
    return scores


def _scalar(loss: Tensor) -> Tensor:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        what = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
        raise DkmError(f"loss returned {what}; it must be a tensor with one value")
    return loss
