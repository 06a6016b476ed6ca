"""Whether stored values are those that they should be: at the limit of each rule, and beside it."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from dkm_deploy.validation.dense_weights import values as dense_values
from dkm_deploy.validation.dense_weights.values import (
    are_equal,
    are_rows,
    error_of,
    is_computed,
    is_like,
    is_multiple,
    nearest_rows,
    round_to,
)

TURNS = np.resize([1.0, -1.0], 64)
RANDOM = np.random.default_rng(0).normal(size=200)


@pytest.mark.parametrize("value", [1e6, 1e-30, np.uint32(0x7FA00000).view(np.float32)])
def test_rounding_into_the_type_of_a_file_is_silent(value):
    with np.errstate(all="raise"):
        found = round_to(np.array([value]), np.dtype(np.float16))
    assert found.dtype == np.float16


class TestSame:
    @pytest.mark.parametrize("operands", [None, np.zeros(200)])
    @pytest.mark.parametrize("block", [1 << 20, 60])
    def test_one_other_value_anywhere_is_noticed(self, monkeypatch, block, operands):
        monkeypatch.setattr(dense_values, "_BLOCK", block)
        wanted = RANDOM.astype(np.float32)
        assert are_equal(wanted, wanted, operands)
        for place in range(wanted.size):
            stored = wanted.copy()
            stored[place] += 1
            assert not are_equal(stored, wanted, operands)

    def test_sizes_must_be_the_same_and_shapes_not(self):
        assert are_equal(np.ones(6), np.ones((2, 3)))
        assert are_equal(np.ones(1), np.array(1.0))
        assert are_equal(np.ones(1), np.array(1.5), np.array(1e9))
        assert not are_equal(np.ones(1), np.array(1.5), np.array(1.0))
        assert not are_equal(np.ones(6), np.ones(5))
        assert are_equal(RANDOM, RANDOM.reshape(10, 20))
        assert not are_equal(RANDOM, RANDOM.reshape(20, 10).T)

    def test_nan_is_equal_to_nan_alone(self):
        nan = np.array([np.nan, 1])
        assert are_equal(nan, nan)
        assert not are_equal(nan, np.ones(2))
        assert not are_equal(np.ones(2), nan)

    @pytest.mark.parametrize(
        ("stored", "wanted", "equal"),
        [
            (np.inf, 1e6, True),
            (65504, 1e6, True),  # tools write the largest in place of infinity
            (-65504, -1e6, True),
            (65504, -1e6, False),
            (1 + 2.0**-10, 1 + 2.0**-11 + 2.0**-40, True),
            (1, 1 + 2.0**-11 + 2.0**-40, True),  # by way of float32
            (1 + 2.0**-9, 1 + 2.0**-11 + 2.0**-40, False),
            (0, 2.0**-24, True),  # the smallest is flushed to zero
            (0, -(2.0**-24), True),
            (0, 2.0**-23, False),
            (2.0**-22, -(2.0**-22), False),
        ],
    )
    def test_values_in_float16(self, stored, wanted, equal):
        assert are_equal(np.array([stored], np.float16), np.array([wanted])) is equal

    def test_only_float16_is_flushed_to_zero(self):
        assert not are_equal(np.zeros(1, np.float32), np.array([2.0**-24]))
        assert not are_equal(np.array([65504], np.float32), np.array([1e6]))

    @pytest.mark.parametrize(
        ("dtype", "error", "equal"),
        [
            (np.float16, 2.0**-10 + 2.0**-20, True),  # a unit in the last place, and 8 of float32
            (np.float16, 2.0**-10 + 2.0**-19, False),
            (np.float32, 9 * 2.0**-23, True),
            (np.float32, 9.5 * 2.0**-23, False),
            (ml_dtypes.bfloat16, 2.0**-8, True),
            (ml_dtypes.bfloat16, 2.0**-8 + 2.0**-15, False),
        ],
    )
    def test_what_is_worked_out_is_right_within_a_unit_of_its_operands(self, dtype, error, equal):
        stored = np.array([error, 0]).astype(dtype)
        for sign in (1, -1):
            values = (sign * stored.astype(np.float64)).astype(dtype)
            assert are_equal(values, np.zeros(2), np.ones(2)) is equal
        twice = (2 * stored.astype(np.float64)).astype(dtype)
        assert are_equal(twice, np.zeros(2), np.full(2, 2.0)) is equal


class TestOff:
    def test_it_is_relative_to_the_length_of_what_was_wanted(self):
        stored, wanted = np.array([3, 4.5, 0, 0], np.float16), np.array([[3.0, 4], [0, 0]])
        assert error_of(stored, wanted) == (0.1, 0.5)
        assert error_of(-stored, -wanted) == (0.1, 0.5)

    def test_zeros_and_what_is_no_number_are_infinitely_far(self):
        with np.errstate(all="raise"):
            assert error_of(np.full(2, 0.5), np.zeros(2)) == (np.inf, 0.5)
            assert error_of(np.array([np.nan, 1]), np.ones(2)) == (np.inf, np.inf)
            assert error_of(np.array([np.inf, 1]), np.array([np.inf, 1])) == (np.inf, np.inf)
        assert error_of(np.zeros(0), np.zeros(0)) == (np.inf, 0.0)


class TestLike:
    @pytest.mark.parametrize(
        ("count", "factor", "like"),
        [
            *((16, 1.199, True), (16, 1.201, False), (16, 0.801, True), (16, 0.799, False)),
            *((14, 1.099, True), (14, 1.101, False), (4, 1.099, True), (2, 1.0, False)),
        ],
    )
    def test_few_values_must_be_nearer(self, count, factor, like):
        assert is_like(factor * TURNS[:count], TURNS[:count]) is like
        assert is_like(factor * TURNS[:count], TURNS[:count].reshape(2, -1)) is like

    def test_of_three_values_a_likeness_is_chance(self):
        assert not is_like(np.array([1.0, 0, -1]), np.array([1.0, 0, -1]))

    @pytest.mark.parametrize(
        ("count", "factor", "like"),
        [(16, 1.299, True), (16, 1.301, False), (14, 1.149, True), (14, 1.151, False)],
    )
    def test_values_about_one_mean_must_stray_from_it_alike(self, count, factor, like):
        turns = TURNS[:count]
        assert is_like(20 + factor * turns, 20 + turns) is like

    def test_a_likeness_at_the_limit_is_one(self):
        wanted, stored = np.zeros(16), np.zeros(16)
        wanted[:2] = stored[:2] = 3, 4
        stored[2] = 1  # a fifth of the length
        assert is_like(stored, wanted)
        turns, error = np.zeros(16), np.zeros(16)
        turns[:4], error[:6] = (5, 5, -5, -5), (2, -2, 0.5, -0.5, 0.5, -0.5)
        assert is_like(20 + turns + error, 20 + turns)  # 3 of 10 about the mean
        even = np.full(16, 250_000.0)
        assert is_like(even + turns / 10, even)  # a millionth of the length about the mean

    def test_small_values_are_like_each_other(self):
        assert is_like(0.011 * TURNS[:16], 0.01 * TURNS[:16])

    def test_values_that_are_all_one_are_like_others_that_are(self):
        turns, wanted = TURNS[:16], np.full(16, 5.0)
        assert is_like(np.full(16, 5.9), wanted)
        assert not is_like(np.full(16, 6.1), wanted)
        assert is_like(5 + 2e-6 * turns, wanted)  # what rounding leaves
        assert not is_like(5 + 2e-5 * turns, wanted)
        assert not is_like(wanted, 5 + 2e-5 * turns)
        assert is_like(np.full(16, 5.0), 5 + 2e-6 * turns)

    def test_nothing_is_like_zeros_and_nothing_that_is_no_number_is_like_a_weight(self):
        assert not is_like(np.zeros(16), np.zeros(16))
        assert not is_like(np.r_[np.nan, TURNS[1:]], TURNS)
        with np.errstate(all="ignore"):
            assert not is_like(np.r_[np.inf, TURNS[1:]], TURNS)


class TestMultiple:
    def test_within_the_rounding_of_float16(self):
        error = np.zeros(64)
        error[:2] = 2.0**-9  # at right angles to the values
        for factor in (1.0, 3.0, -0.5):
            assert is_multiple((factor * TURNS).astype(np.float16), TURNS.reshape(8, 8))
            assert is_multiple(factor * TURNS + error, TURNS)
            assert is_multiple(factor * TURNS - error, TURNS)
            assert not is_multiple(factor * TURNS + 1.001 * error, TURNS)
            assert not is_multiple(factor * TURNS - 1.001 * error, TURNS)
        assert is_multiple(6 * TURNS + 3 * error, 3 * TURNS)

    def test_of_zeros_there_is_none(self):
        assert not is_multiple(np.zeros(4), np.zeros(4))

    def test_of_small_values_there_is(self):
        assert is_multiple(0.02 * TURNS, 0.01 * TURNS)


class TestComputed:
    @pytest.mark.parametrize(
        ("stored", "computed"),
        [
            ([1, 0, 3, 4.5, 5, -6], True),
            ([1, 0, 3, 0, 0, 0], True),
            ([1, 2, 3, 4.5, 5, -6], False),  # equal, and nothing is zero
            ([1, 0, 3, 4.75, 5, -6], False),
            ([1, 2, 3.5, 4.5, 5, -6], False),
        ],
    )
    def test_a_mask_leaves_the_others_as_they_were(self, stored, computed):
        wanted = np.array([[1, 2], [3, 4.5], [5, -6]])
        assert is_computed(np.array(stored, np.float16), wanted.reshape(1, -1)) is computed

    @pytest.mark.parametrize("rows", [2, 5])
    def test_one_vector_is_added_to_all_rows(self, rows):
        table = RANDOM[: rows * 4].reshape(rows, 4)
        shifted = table + np.array([0.25, -0.5, 1.0, 2.0])
        assert is_computed(shifted.reshape(-1), table)
        assert not is_computed(shifted.reshape(-1), table.reshape(1, -1))  # of one row it is any
        shifted[-1, 1] += 0.01 * np.abs(table).max()
        assert not is_computed(shifted.reshape(-1), table)

    def test_what_is_added_may_differ_from_that_of_the_first_row_by_rounding(self):
        table = np.resize([1.0, -1.0], (3, 4))
        for unit, computed in ((2.0**-9, True), (1.01 * 2.0**-9, False)):
            shifted = table + 0.5 + unit * np.array([[0], [-1], [1]])
            assert is_computed(shifted.reshape(-1), table) is computed

    def test_the_order_of_many_values_is_kept_and_not_their_proportion(self):
        for made in (np.tanh(RANDOM), np.clip(RANDOM, -1, 1)):
            assert is_computed(made[:64], RANDOM[:64])
            assert is_computed(made[:65], RANDOM[:65].reshape(1, -1))
            assert not is_computed(made[:63], RANDOM[:63])
        assert not is_computed(1.25 * RANDOM, RANDOM)
        assert not is_computed(np.tanh(-RANDOM), RANDOM)
        other = np.tanh(RANDOM)
        other[[0, 1]] = other[[1, 0]]
        assert not is_computed(other, RANDOM)

    def test_equal_values_are_taken_in_their_order(self):
        wanted = np.resize([0.0, 1.0], 100)
        assert is_computed(wanted * 2 + 1 + np.linspace(0, 0.5, 100), wanted)


class TestRows:
    TABLE = np.array([[1, 2], [3, 4], [5, 6]])

    @pytest.mark.parametrize(
        ("rows", "found"),
        [
            ([[3, 4]], True),
            ([[5, 6], [1, 2], [1, 2], [3, 4]], True),
            ([[2, 3]], False),
            ([[1, 2], [4, 3]], False),
        ],
    )
    def test_rows_of_a_table_in_any_order(self, rows, found):
        assert are_rows(np.array(rows, np.float16), self.TABLE.astype(np.float64)) is found
        columns = np.asfortranarray(np.array(rows, np.float32))
        assert are_rows(columns, self.TABLE.astype(np.float32)) is found

    def test_a_table_is_rounded_as_the_file_is(self):
        rows = np.array([[0.1, 0.2]], np.float16)
        assert are_rows(rows, np.array([[0.1, 0.2], [3.0, 4.0]]))
        assert are_rows(rows, np.array([[0.1, 3.0], [0.2, 4.0]]).T)

    @pytest.mark.parametrize(
        ("rows", "found"),
        [
            *(([1, 2], True), ([3, 1], True), ([1, 2, 3, 1], True), ([2], True)),
            *(([1, 3], False), ([2, 1], False), ([1, 2, 3, 1, 1], False), ([7], False)),
            ([1, 2, 3, 1, 1, 1, 1], False),
        ],
    )
    def test_single_values_must_come_in_a_run(self, rows, found):
        table = np.array([[1], [2], [3], [1]], np.float32)
        assert are_rows(np.array(rows, np.float32)[:, None], table) is found

    def test_only_the_first_64_starts_of_a_run_are_tried(self):
        rows = np.array([[1.0], [2.0]])
        for ones, found in ((64, True), (65, False)):
            assert are_rows(rows, np.array([[1.0]] * ones + [[2.0]])) is found


def test_the_nearest_row_is_that_at_the_least_distance(monkeypatch):
    table = np.array([[9.0, 9], [1, 2], [0, 0], [-1, 2]])
    found = nearest_rows(np.array([[1.0, 1.5], [0.2, 0.1], [-9, 0], [8, 8]]), table)
    np.testing.assert_array_equal(found, table[[1, 2, 3, 0]])
    large = np.array([[300.0, 299], [299, 301]], np.float16)
    np.testing.assert_array_equal(nearest_rows(large, large[::-1]), large)
    monkeypatch.setattr(dense_values, "_MOST_PRODUCTS", 16)
    assert nearest_rows(np.ones((2, 2)), table) is not None
    assert nearest_rows(np.ones((3, 2)), table) is None
