"""What outputs say: their errors, metric, loss and answers, under the reference's names."""

from __future__ import annotations

import numpy as np
import pytest

import dkm_deploy as dkm
from dkm_deploy.model.metric import accuracy
from dkm_deploy.parity.output_errors import errors
from dkm_deploy.validation.measures.confidence_interval import metric_loss
from dkm_deploy.validation.measures.top1_agreement import Answers, compare_answers
from dkm_deploy.validation.task import (
    FirstOutput,
    Original,
    Task,
    errors_of,
    first,
    match_outputs,
    score_first_output,
)

LABELS = np.arange(20) % 4
RIGHT = np.eye(4)[LABELS]
ACTUAL = np.eye(4)[np.where(np.arange(20) < 5, 3 - LABELS, LABELS)]


def _task(original=None, labels=LABELS, metric=accuracy):
    before = None if original is None else Original({"output": original}, 1, 1)
    return Task((), {"output": RIGHT}, before, labels, metric, dkm.Limits(), {})


def test_outputs_are_matched_by_name_and_else_by_their_place():
    one, two = np.zeros(1), np.ones(1)
    reference = {"a": one, "b": two}
    assert list(match_outputs({"b": two, "a": one}, reference).items()) == [("a", one), ("b", two)]
    assert list(match_outputs({"x": two, "a": one}, reference).items()) == [("a", two), ("b", one)]
    with pytest.raises(dkm.DkmError, match="^outputs are x, y, z; PyTorch has a, b$"):
        match_outputs(dict.fromkeys("xyz", one), reference)
    assert first(reference) is one


def test_batches_are_joined_along_the_dimension_that_holds_their_samples():
    reference = np.arange(24.0).reshape(2, 4, 3)
    joined = np.concatenate([reference[:, :2], reference[:, 2:]])
    assert np.array_equal(match_outputs({"y": joined}, {"y": reference})["y"], reference)
    for other in (joined[:3], joined[..., :2], reference[0]):
        assert match_outputs({"y": other}, {"y": reference})["y"] is other


def test_errors_are_those_of_each_output():
    reference = {"a": RIGHT, "b": RIGHT[:1]}
    found = errors_of({"b": ACTUAL[:1], "a": ACTUAL}, reference)
    assert found == {"a": errors(ACTUAL, RIGHT), "b": errors(ACTUAL[:1], RIGHT[:1])}


def test_what_did_not_run_has_no_answers():
    assert score_first_output(None, _task(RIGHT)) == FirstOutput(None, None, Answers())


def test_the_metric_needs_labels_and_its_loss_an_original():
    outputs = {"output": ACTUAL, "other": RIGHT}
    agreed = compare_answers(ACTUAL, RIGHT, LABELS)
    loss = metric_loss(accuracy, RIGHT, ACTUAL, LABELS)
    assert loss.value == 25
    assert score_first_output(outputs, _task(RIGHT)) == FirstOutput(75, loss, agreed)
    assert score_first_output(outputs, _task()) == FirstOutput(75, None, Answers())
    unlabelled = compare_answers(ACTUAL, RIGHT, None)
    assert score_first_output(outputs, _task(RIGHT, None)) == FirstOutput(None, None, unlabelled)


def test_a_metric_that_cannot_be_computed_is_told():
    def fails(output, labels):
        raise ValueError("no")

    found = score_first_output({"output": ACTUAL}, _task(RIGHT, metric=fails))
    assert (found.metric, found.loss) == (None, None)
    assert found.answers == compare_answers(ACTUAL, RIGHT, LABELS)
    assert found.failed == "the metric cannot be computed: ValueError: no"


def test_nothing_is_compared_with_a_random_original():
    before = Original({"output": RIGHT}, 1, 1, "it is random")
    task = Task((), {"output": RIGHT}, before, None, accuracy, dkm.Limits(), {})
    assert score_first_output({"output": ACTUAL}, task).answers == Answers(reason="it is random")
