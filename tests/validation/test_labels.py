"""Labels that a metric is not asked of decide nothing, and the reason is told."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import dkm_deploy as dkm
from dkm_deploy.model.metric import accuracy
from dkm_deploy.validation.checks.output_checks import answer_checks
from dkm_deploy.validation.labels import decide_metric, labels_array
from dkm_deploy.validation.task import Original, Task, score_first_output

LABELS = np.random.default_rng(0).integers(10, size=200)
RIGHT = np.eye(10)[LABELS]
WRONG = np.eye(10)[(LABELS + 1) % 10]
LIMITS = dkm.Limits(max_metric_loss=1, min_agreement=0.9)


def _checks(labels, metric=accuracy, *, original=RIGHT, actual=RIGHT, limits=LIMITS):
    """What is said of a file that gives ``actual``."""
    before = None if original is None else Original({"output": original}, 1, 1)
    task = decide_metric(Task((), {"output": RIGHT}, before, labels, metric, limits, {}))
    checks = answer_checks(score_first_output({"output": actual}, task), limits, task.undecided)
    for check in checks:  # a limit that cannot be decided is no pass; without one nobody asked
        asked = limits.max_metric_loss is not None
        assert check.blocks == (check.status == "skipped" and asked)
    return {check.name: (check.status, check.reason) for check in checks}


def test_right_labels_decide():
    assert _checks(LABELS)["metric"][0] == "passed"
    status, reason = _checks(LABELS, actual=WRONG)["metric"]
    assert (status, reason.split(";")[0]) == ("failed", "0 against 100: loss 100, limit 1")


@pytest.mark.parametrize("actual", [RIGHT, WRONG])
@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (LABELS[:, None], "give labels.squeeze(-1)"),
        (LABELS + 1, "subtract 1"),
        (LABELS * 0 - 1, "classes are 0 to 9"),
        (LABELS * np.nan, "200 of 200 labels are NaN"),
        (LABELS.astype(str), "class numbers from 0"),
        (np.where(LABELS < 9, LABELS + 1, 1), "numbered from 0 (none is 0)"),
        (WRONG.argmax(1), "no more than guessing (10 %)"),
    ],
)
def test_labels_that_do_not_fit_are_skipped_whatever_the_file_gives(labels, reason, actual):
    status, told = _checks(labels, actual=actual)["metric"]
    assert status == "skipped"
    assert reason in told
    without_limit = _checks(labels, actual=actual, limits=dkm.Limits())
    assert without_limit["metric"] == (status, told)  # labels were given for something


def test_guessing_right_is_no_baseline():
    """One in ten is right by chance; a single one more is better than that."""
    labels = np.where(np.arange(200) < 20, LABELS, WRONG.argmax(1))
    assert "is right in 10 %, no more than guessing" in _checks(labels)["metric"][1]
    labels[20] = LABELS[20]
    assert _checks(labels)["metric"][0] == "passed"


@pytest.mark.parametrize("shape", [(200,), (200, 1), (200, 2, 2)])
def test_outputs_that_are_no_scores_have_neither_metric_nor_agreement(shape):
    ones = np.ones(shape)
    found = _checks((LABELS > 4).astype(int), original=ones, actual=-ones)
    assert {status for status, _ in found.values()} == {"skipped"}
    assert all(f"outputs of shape {shape}" in reason for _, reason in found.values())


def test_nan_counts_for_nobody():
    broken = RIGHT.copy()
    broken[:50] = np.nan
    found = _checks(LABELS, original=broken, actual=broken)
    assert found["metric"][0] == "passed"
    assert "75 against 75" in found["metric"][1]
    assert found["agreement"][0] == "failed"
    for _, reason in found.values():
        assert reason.endswith("inputs that the original answers with NaN or infinity: 50")
    nothing = RIGHT * np.nan
    found = _checks(LABELS * 0, original=nothing, actual=nothing)
    assert {status for status, _ in found.values()} == {"skipped"}
    assert "its scores are not finite" in found["agreement"][1]
    assert found["metric"][1] == "the original gives NaN or infinity alone"
    assert _checks(LABELS, actual=nothing)["metric"][0] == "failed"


def _mean(output, truth):
    return float(output.mean())


def test_a_gain_is_no_loss():
    assert _checks(LABELS, _mean, actual=RIGHT + 9)["metric"][0] == "passed"
    assert _checks(LABELS, _mean, actual=RIGHT - 9)["metric"][0] == "failed"


def test_a_metric_that_is_not_finite_never_passes():
    assert _checks(LABELS, _mean, actual=RIGHT * np.nan)["metric"][0] == "failed"
    assert _checks(LABELS, _mean, actual=RIGHT + np.inf)["metric"][0] == "failed"
    status, reason = _checks(LABELS, _mean, original=RIGHT * np.nan)["metric"]
    assert (status, reason) == ("skipped", "the metric of the original is nan")


def test_zero_of_both_tells_nothing():
    status, reason = _checks(LABELS, lambda y, t: 0.0)["metric"]
    assert status == "skipped"
    assert "0 of the original" in reason
    below = _checks(LABELS, lambda y, t: -float(np.abs(y - RIGHT).mean()), actual=WRONG)["metric"]
    assert below[0] == "passed"  # a loss of 0.2 was measured


def test_a_metric_must_give_the_same_twice():
    values = iter(range(1, 10))
    status, reason = _checks(LABELS, lambda y, t: next(values))["metric"]
    assert (status, reason) == ("skipped", "the metric gives 1 and then 2 of the same outputs")


@pytest.mark.parametrize(("gap", "status"), [(1e-10, "passed"), (1e-8, "skipped")])
def test_a_metric_may_add_in_another_order(gap, status):
    values = itertools.cycle([1.0, 1.0 + gap])
    assert _checks(LABELS, lambda y, t: next(values))["metric"][0] == status


def test_without_an_original_the_reference_is_asked():
    def why(labels, metric=accuracy, reference=RIGHT):
        return decide_metric(
            Task((), {"output": reference}, None, labels, metric, LIMITS, {})
        ).undecided

    assert why(LABELS) == ""
    assert why(WRONG.argmax(1)) == ""  # right by guessing is no baseline, and this is none
    assert why(LABELS * 0, reference=RIGHT * np.nan) == "the reference gives NaN or infinity alone"
    assert why(LABELS, _mean, RIGHT * np.nan) == "the metric of the reference is nan"


def test_labels_that_the_metric_is_not_asked_of_are_left_out():
    def labels(given, metric=accuracy, random=""):
        before = Original({"output": RIGHT}, 1, 1, random)
        return decide_metric(Task((), {"output": RIGHT}, before, given, metric, LIMITS, {})).labels

    assert labels(LABELS) is LABELS
    assert labels(LABELS, random="it is random") is LABELS
    assert labels(LABELS + 1) is None
    assert labels(LABELS, lambda y, t: float("inf")) is None
    values = iter(range(1, 3))
    assert labels(LABELS, lambda y, t: next(values)) is None
    assert labels(None) is None


def test_a_random_original_decides_nothing():
    before = Original({"output": RIGHT}, 1, 1, "it is random")
    task = Task((), {"output": RIGHT}, before, LABELS, accuracy, LIMITS, {})
    assert decide_metric(task).undecided == "it is random"


def test_a_metric_that_fails_on_the_file_alone_fails():
    def picky(output, truth):
        if np.isnan(output).any():
            raise ValueError("Input contains NaN")
        return 1.0

    status, reason = _checks(LABELS, picky, actual=RIGHT * np.nan)["metric"]
    assert (status, reason) == (
        "failed",
        "the metric cannot be computed: ValueError: Input contains NaN",
    )
    with pytest.raises(dkm.DkmError, match=r"cannot be computed: ValueError: Input contains NaN"):
        _checks(LABELS, picky, original=RIGHT * np.nan)


def test_labels_of_any_kind_become_an_array():
    assert labels_array(None, 2) is None
    assert labels_array([1, 2], 2).tolist() == [1, 2]
    assert labels_array(("a", "b"), 2).tolist() == ["a", "b"]
    assert labels_array(torch.tensor([1.0, 2.0], dtype=torch.bfloat16), 2).tolist() == [1, 2]
    assert labels_array(torch.ones(2, requires_grad=True), 2).tolist() == [1, 1]
    for dtype in (torch.int64, torch.float64, torch.bool):
        assert labels_array(torch.ones(2, dtype=dtype), 2).dtype == str(dtype).split(".")[1]


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([1, 2, 3], "3 labels for 2 inputs$"),
        (
            [[1], [2, 3]],
            "labels cannot be converted to an array: setting an array element with a sequence",
        ),
        (torch.tensor(1), "labels are a single Tensor; give one for each input$"),
        (3, "labels are a single int; give one for each input$"),
    ],
)
def test_labels_that_are_not_as_many_are_refused(labels, reason):
    with pytest.raises(dkm.DkmError, match=f"^{reason}"):
        labels_array(labels, 2)
