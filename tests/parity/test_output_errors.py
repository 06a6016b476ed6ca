from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dkm_deploy import DkmError
from dkm_deploy.model.metric import accuracy
from dkm_deploy.parity.output_errors import difference, errors

_arrays = hnp.arrays(np.float32, hnp.array_shapes(), elements=st.floats(-100, 100, width=32))


def test_each_figure_is_its_definition():
    expected = np.array([[3.0, 4.0], [0.0, 0.0]])
    actual = np.array([[3.0, 4.5], [0.0, -0.5]])
    found = errors(actual, expected)
    assert found.max_abs == 0.5
    assert found.mean_abs == 0.25
    assert found.relative == pytest.approx(np.sqrt(0.5) / 5)
    assert found.sqnr_db == pytest.approx(10 * np.log10(25 / 0.5))
    assert found.cosine == pytest.approx((9 + 18) / (5 * np.sqrt(9 + 4.5**2 + 0.25)))
    assert found.element == pytest.approx(0.5 / 2.5)  # above 0, where the floor is the rms
    assert found.psnr_db == pytest.approx(20 * np.log10(4 / np.sqrt(0.5 / 4)))
    assert (found.nonfinite, found.compared) == (0, 4)
    assert found.p999_abs == 0.5


def test_a_percentile_leaves_the_rarest_differences_out():
    actual = np.ones(2001)
    actual[5] += 1000
    found = errors(actual, np.ones(2001))
    assert (found.max_abs, found.p999_abs) == (1000, 0)


def test_figures_are_in_float64():
    found = errors(np.full(2, 6e4, np.float16), np.full(2, -6e4, np.float16))
    assert (found.max_abs, found.relative) == (120000, pytest.approx(2))


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_whole_numbers_that_differ_are_never_the_same(dtype):
    large = np.full(3, 2**60, dtype)
    assert errors(large + dtype(1), large).max_abs == 1
    assert errors(large, large).max_abs == 0
    assert difference(large, large + dtype(7)).tolist() == [1, 1, 1]
    assert difference(large.astype(np.float64), large).tolist() == [0, 0, 0]
    assert difference(large, large.astype(np.float64)).tolist() == [0, 0, 0]
    found = difference(np.array([3, 5], dtype), np.array([5, 3], dtype))
    assert found.tolist() == [-2, 2]


def test_truth_values_differ_by_one():
    found = difference(np.array([True, True, False]), np.array([True, False, True]))
    assert found.tolist() == [0, 1, -1]


@given(_arrays)
def test_equal_arrays_have_no_error(array):
    found = errors(array, array.copy())
    assert (found.max_abs, found.relative, found.element, found.nonfinite) == (0, 0, 0, 0)
    assert (found.sqnr_db, found.psnr_db, found.compared) == (None, None, array.size)
    assert found.cosine == pytest.approx(1)


@given(_arrays, st.floats(0.1, 10))
def test_the_shape_does_not_change_the_figures(array, scale):
    """A peer divides by the first dimension's length, which is 30 dB off."""
    noisy = array + scale * np.sin(np.arange(array.size)).reshape(array.shape)
    assert errors(noisy, array) == errors(noisy.reshape(1, -1), array.reshape(1, -1))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_counted_not_averaged_away(bad):
    expected = np.ones(4)
    actual = np.array([1, bad, 1, 1.5])
    found = errors(actual, expected)
    assert found.nonfinite == 1
    assert found.max_abs == 0.5


def test_a_signalling_nan_is_like_any_other():
    actual = np.array([0x7FA00000, 0x3F800000], np.uint32).view(np.float32)
    assert errors(actual, np.ones(2, np.float32)).nonfinite == 1


def test_infinities_of_either_sign_differ():
    for one, other in ((np.inf, -np.inf), (np.nan, np.inf), (-np.inf, np.nan)):
        actual, expected = np.array([1.0, one]), np.array([1.0, other])
        assert errors(actual, expected).nonfinite == errors(expected, actual).nonfinite == 1


def test_the_same_infinity_on_both_sides_is_no_error():
    array = np.array([1.0, np.inf, np.nan])
    assert errors(array, array).nonfinite == 0


def test_where_nothing_is_finite_there_are_no_figures():
    found = errors(np.full(2, np.nan), np.full(2, np.nan))
    assert (found.nonfinite, found.compared, found.sqnr_db) == (0, 0, None)
    assert found.psnr_db is None
    figures = (found.max_abs, found.mean_abs, found.p999_abs, found.relative, found.element)
    assert np.isnan([*figures, found.cosine]).all()


def test_a_difference_from_zero_is_infinite():
    found = errors(np.ones(3), np.zeros(3))
    assert (found.relative, found.element) == (np.inf, np.inf)
    assert (found.sqnr_db, found.psnr_db, found.cosine) == (-np.inf, -np.inf, 0)
    found = errors(np.zeros(3), np.zeros(3))
    assert (found.relative, found.element, found.sqnr_db, found.psnr_db) == (0, 0, None, None)
    assert found.cosine == 1
    assert errors(np.zeros(3), np.ones(3)).cosine == 0


def test_shapes_that_differ_are_an_error():
    with pytest.raises(DkmError, match=r"^shape \(2, 1\) in place of \(2,\)$"):
        errors(np.ones((2, 1)), np.ones(2))
    with pytest.raises(DkmError, match="^the outputs are empty: there is nothing to compare$"):
        errors(np.ones(0), np.ones(0))


def test_answers():
    scores = np.array([[0.1, 0.9], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7]])
    assert accuracy(scores, np.array([1, 0, 1, 1])) == 75
