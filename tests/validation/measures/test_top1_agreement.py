from __future__ import annotations

import numpy as np
import pytest

from dkm_deploy.validation.measures.top1_agreement import Flip, compare_answers

SCORES = np.array([[0.1, 0.9], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7]])


def test_flips_are_listed_with_their_inputs():
    actual = SCORES.copy()
    actual[2] = 0.4, 0.6
    found = compare_answers(actual, SCORES, np.array([1, 0, 0, 1]))
    assert found.agreement == 0.75
    assert found.flip_count == 1
    assert found.flips == (Flip(input=2, original=0, answer=1, label=0),)
    assert found.top5_overlap is None
    assert compare_answers(actual, SCORES, None).flips[0].label is None
    for other in (np.ones(4), np.ones((4, 2), int), np.array(list("abcd"))):  # no classes
        assert compare_answers(actual, SCORES, other).flips[0].label is None


def test_top_5_overlap_is_of_sets_not_of_places():
    original = np.arange(20.0).reshape(1, 20)
    turned = original.copy()
    turned[0, 15:] = turned[0, 15:][::-1]
    assert compare_answers(turned, original, None).top5_overlap == 1
    turned[0, 0], turned[0, 15] = 99, -1
    assert compare_answers(turned, original, None).top5_overlap == pytest.approx(0.8)
    assert compare_answers(-original, original, None).top5_overlap == 0
    assert compare_answers(original[:, :5], original[:, :5], None).top5_overlap is None
    assert compare_answers(original[:, :6], original[:, :6], None).top5_overlap == 1
    turned = original.copy()
    turned[0, :15] = turned[0, :15][::-1]  # all but the best
    assert compare_answers(turned, original, None).top5_overlap == 1


def test_of_equal_scores_the_first_classes_are_the_top_ones():
    turns, falling = np.tile([0.0, 1.0], 50), -np.arange(100.0)
    falling[::2] -= 100  # 1, 3, 5, 7 and 9 are the best
    assert compare_answers(falling[None], turns[None], None).top5_overlap == 1


def test_nan_is_no_answer():
    actual = SCORES.copy()
    actual[0, 1] = np.nan  # argmax would point at it, and so agree
    found = compare_answers(actual, SCORES, None)
    assert (found.agreement, found.flips[0].input) == (0.75, 0)


def test_the_list_of_flips_ends_but_the_count_does_not():
    scores = np.eye(2)[np.zeros(3000, int)]
    found = compare_answers(scores[:, ::-1], scores, None)
    assert (found.agreement, found.flip_count, len(found.flips)) == (0, 3000, 1000)


def test_an_original_without_an_answer_agrees_with_nobody():
    original, turned = SCORES.copy(), SCORES[:, ::-1]
    original[0, 1] = np.nan
    original[1] = np.inf, 0.2
    found = compare_answers(SCORES, original, None)
    assert (found.agreement, found.unanswered) == (0.5, 2)
    assert [flip.input for flip in found.flips] == [0, 1]
    assert compare_answers(original, original, None).agreement == 0.5
    none = compare_answers(turned, SCORES * np.nan, None)
    assert (none.agreement, none.flip_count, none.unanswered) == (None, None, 4)
    assert none.reason == "the original answers no input: its scores are not finite"
    part = SCORES.copy()
    part[3] = np.nan
    assert compare_answers(SCORES, part, None).unanswered == 1


def test_a_class_that_is_ruled_out_is_an_answer():
    masked = np.where(SCORES < 0.25, -np.inf, SCORES)
    assert compare_answers(masked, SCORES, None).agreement == 1


def test_what_is_no_answer_has_no_top_5():
    original = np.arange(20.0).reshape(2, 10)
    broken = original.copy()
    broken[1, 0] = np.nan
    assert compare_answers(broken, original, None).top5_overlap == 0.5
    assert compare_answers(original, broken, None).top5_overlap == 0.5
    broken[0, 5] = -1  # in place of 4, which was the sixth best
    assert compare_answers(broken, original, None).top5_overlap == pytest.approx(0.4)


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 2, 2)])
def test_outputs_that_are_no_scores_have_no_answers(shape):
    found = compare_answers(np.zeros(shape), np.zeros(shape), None)
    assert (found.agreement, found.flip_count, found.flips) == (None, None, ())
    assert found.reason == (
        f"outputs of shape {shape} are not scores of classes, (n, classes): give labels and a "
        "metric instead"
    )
    other = compare_answers(np.zeros((4, 2)), np.zeros((4, 3)), None)
    assert other.agreement is None
    assert other.reason == "outputs of shape (4, 2); the original's are (4, 3)"
