"""Which labels top-1 accuracy is asked of, and what a metric may give."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import dkm_deploy as dkm
from dkm_deploy.model.metric import accuracy, chance_warning, is_answer, score, unfit_reason

SCORES = np.eye(4)[[0, 1, 2, 3, 3, 0]]
LABELS = np.array([0, 1, 2, 3, 3, 1])


@pytest.mark.parametrize(
    "labels", [LABELS, LABELS.astype(np.int8), LABELS.astype(np.uint64), LABELS.astype(float)]
)
def test_class_numbers_of_any_type_are_taken(labels):
    assert accuracy(SCORES, labels) == pytest.approx(100 * 5 / 6)


def test_true_and_false_are_two_classes():
    yes = np.array([True, False, True])
    assert accuracy(np.array([[0, 1], [1, 0], [1, 0]]), yes) == pytest.approx(200 / 3)
    assert "there are 4 classes" in unfit_reason(SCORES[:3], yes)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (LABELS + 1, "labels are 1 to 4, and the outputs' classes are 0 to 3: they are numbered"),
        (LABELS - 1, "labels are -1 to 2, and the outputs' classes are 0 to 3: give the outputs'"),
        (LABELS * 2, "labels are 0 to 6, "),
        (LABELS * 0 - 100, "labels are -100 to -100, "),
        (LABELS[:, None], r"labels of shape (6, 1) have one dimension too many"),
        (SCORES.astype(int), "if one-hot, give their argmax"),
        (LABELS[:5], "labels of shape (5,) do not fit outputs of shape (6, 4)"),
        (np.where(LABELS == 1, np.nan, LABELS), "2 of 6 labels are NaN or infinite"),
        (LABELS + 0.5, "labels such as 0.5 are no class numbers"),
        (LABELS.astype(str), "top-1 accuracy takes class numbers from 0, or give metric="),
        (LABELS.astype(object), "labels are object; "),
        (LABELS.astype(complex), "labels are complex128; "),
    ],
)
def test_other_labels_are_told_with_what_to_do(labels, reason):
    assert reason in unfit_reason(SCORES, labels)
    with pytest.raises(dkm.DkmError):
        accuracy(SCORES, labels)


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 1, 1)])
def test_one_number_for_an_input_has_no_classes(shape):
    for labels in (LABELS > 1, LABELS, LABELS[:, None] * 0):
        assert "have no scores of classes: give metric=" in unfit_reason(np.ones(shape), labels)


def test_a_class_for_every_place_is_found_by_the_shape_of_the_labels():
    scores = np.random.default_rng(0).normal(size=(5, 3, 4, 6))
    images, tokens = scores.argmax(1), scores.argmax(-1)
    assert (accuracy(scores, images), accuracy(scores, tokens)) == (100, 100)
    images[0, 0, 0] = (images[0, 0, 0] + 1) % 3
    assert accuracy(scores, images) == pytest.approx(100 * 119 / 120)
    assert "guessing (33.33 %)" in chance_warning(100 / 3, scores, images)
    assert chance_warning(33.4, scores, images) == chance_warning(16.7, scores, tokens) == ""
    assert "guessing (16.67 %)" in chance_warning(16.6, scores, tokens)
    square = scores[:, :, :3, :3]
    assert "do not tell which dimension" in unfit_reason(square, square.argmax(1))
    assert "have no scores of classes" in unfit_reason(scores[:, :1], images)
    assert "do not fit" in unfit_reason(scores, images[:, 0])


def test_nan_and_infinity_answer_nothing():
    scores = np.array([[1, np.nan], [np.nan, np.nan], [np.inf, 1], [-np.inf, 1], [-np.inf] * 2])
    assert is_answer(scores).tolist() == [False, False, False, True, False]
    assert accuracy(scores, scores.argmax(1)) == 20


@pytest.mark.parametrize(
    "value", [2, 2.0, np.float32(2), np.array(2.0), np.array([2]), torch.ones(1, 1) * 2]
)
def test_a_metric_may_give_any_single_number(value):
    assert score(lambda y, t: value, SCORES, LABELS) == 2


@pytest.mark.parametrize(
    ("value", "what"),
    [(None, "None"), ("high", "a str"), (np.zeros(2), "a ndarray"), (torch.zeros(2), "a Tensor")],
)
def test_what_is_no_number_is_told(value, what):
    with pytest.raises(dkm.DkmError, match=f"it gave {what}, not a number"):
        score(lambda y, t: value, SCORES, LABELS)


def test_a_metric_writes_into_copies():
    scores, labels = SCORES.copy(), LABELS.copy()

    def writes(output, truth):
        output[:] = 0
        truth[:] = 0
        return 1.0

    assert score(writes, scores, labels) == 1
    assert np.array_equal(scores, SCORES)
    assert np.array_equal(labels, LABELS)
