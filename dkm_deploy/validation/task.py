"""What every row of a report is measured against, and what outputs say beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from dkm_deploy.errors import DkmError
from dkm_deploy.formats.interface import Interface
from dkm_deploy.model.inputs import Inputs
from dkm_deploy.model.metric import Metric, score
from dkm_deploy.model.run import Outputs
from dkm_deploy.model.steps import Steps
from dkm_deploy.palette import Palette
from dkm_deploy.parity.output_errors import Errors, errors
from dkm_deploy.parity.reduced_precision import Arithmetic
from dkm_deploy.parity.rounding_noise import Noise
from dkm_deploy.validation.dense_weights.reference import DenseReference
from dkm_deploy.validation.limits import Limits
from dkm_deploy.validation.measures.confidence_interval import Loss, metric_loss
from dkm_deploy.validation.measures.cost_measure import Meter
from dkm_deploy.validation.measures.top1_agreement import Answers, compare_answers
from dkm_deploy.validation.size_budget import Budget


@dataclass(frozen=True)
class Original:
    """The model before clustering: outputs, bytes of its tensors, and as fp16 if that is known.

    ``random`` tells of outputs that are others on a second run; nothing is compared with them.
    """

    outputs: Outputs
    tensor_bytes: int
    half_bytes: int | None
    random: str = ""


@dataclass(frozen=True)
class Task:
    """What every row is measured against."""

    inputs: Inputs | Steps
    reference: Outputs
    original: Original | None
    labels: NDArray[Any] | None
    metric: Metric
    limits: Limits
    frozen: Mapping[str, Palette]
    model: nn.Module | None = None
    """The reference itself, where it is at hand."""
    dense: DenseReference | None = None
    """Its dense weights, where they are."""
    interface: Interface | None = None
    """What an app is to find in files of its suffix, where that is known from elsewhere."""
    noise: Mapping[Arithmetic, Noise] = field(default_factory=dict)
    """The reference's own, where it was measured before and the model is not at hand."""
    budget: Budget | None = None
    meter: Meter | None = None
    random: str = ""
    """Why nothing is compared with the reference: it gives other outputs on a second run, or it is
    a file that no runtime here runs."""
    function: str | None = None
    """The function of files that is run and read; None is the default one."""
    undecided: str = ""
    """Why the metric decides nothing though labels were given."""


@dataclass(frozen=True)
class FirstOutput:
    """What the first output is worth; all of it None or empty where that cannot be told."""

    metric: float | None
    loss: Loss | None
    answers: Answers
    failed: str = ""
    """Why the metric cannot be computed of these outputs, if so."""


def errors_of(outputs: Outputs, reference: Outputs) -> dict[str, Errors]:
    """Errors of each output, under the reference's names. Raises DkmError for another shape."""
    return {name: errors(outputs[name], expected) for name, expected in reference.items()}


def score_first_output(outputs: Outputs | None, task: Task) -> FirstOutput:
    """The metric, its loss and the answers."""
    if outputs is None:
        return FirstOutput(None, None, Answers())
    actual = first(outputs)
    before = first(task.original.outputs) if task.original else None
    answers = Answers() if before is None else compare_answers(actual, before, task.labels)
    if task.original and task.original.random:
        answers = Answers(reason=task.original.random)
    if task.labels is None:
        return FirstOutput(None, None, answers)
    try:
        metric = score(task.metric, actual, task.labels)
        loss = None if before is None else metric_loss(task.metric, before, actual, task.labels)
    except DkmError as error:
        return FirstOutput(None, None, answers, str(error))
    return FirstOutput(metric, loss, answers)


def match_outputs(outputs: Outputs, reference: Outputs) -> Outputs:
    """Outputs by the reference's names and in its order, whatever the file calls them.

    They are matched by name, or in order where the file has names of its own. One that has samples
    along another dimension than the first, as the memory of XLNet, is joined along that.

    Raises:
        DkmError: there are more or fewer of them.
    """
    if len(outputs) != len(reference):
        raise DkmError(f"outputs are {', '.join(outputs)}; PyTorch has {', '.join(reference)}")
    if set(outputs) != set(reference):
        outputs = dict(zip(reference, outputs.values(), strict=True))
    return {name: _join_again(outputs[name], wanted.shape) for name, wanted in reference.items()}


def _join_again(joined: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """What batches gave, joined along the dimension that gives a shape instead of the first."""
    if joined.ndim != len(shape) or joined.shape == shape or 0 in shape or len(joined) % shape[0]:
        return joined
    parts = np.split(joined, len(joined) // shape[0])
    found = (np.concatenate(parts, axis) for axis in range(1, joined.ndim))
    return next((array for array in found if array.shape == shape), joined)


def first(outputs: Outputs) -> NDArray[Any]:
    """The output that metrics and answers are about."""
    return next(iter(outputs.values()))
