"""What the check of dense weights says, word by word; plain arrays in place of a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dkm_deploy.formats.dense_tensor import DenseTensor
from dkm_deploy.validation.check import Check
from dkm_deploy.validation.dense_weights.check import dense_check
from dkm_deploy.validation.dense_weights.reference import DenseReference

PATH = Path("m.onnx")
RANDOM = np.random.default_rng(0)
A, B, BIAS = RANDOM.normal(size=(6, 4)), RANDOM.normal(size=(5, 7)), RANDOM.normal(size=6)


class _Reader:
    """A reader of a file with these tensors."""

    def __init__(self, tensors):
        self.tensors = tensors

    def read_dense(self, path):
        assert path == PATH
        for name, array in self.tensors.items():
            yield DenseTensor(name, array.nbytes, lambda array=array: array)


def _check(stored, held, palettized=()):
    reference = DenseReference({name: np.asarray(array) for name, array in held.items()}, {})
    return dense_check(PATH, _Reader(stored), reference, palettized)


def test_equal_weights_are_counted_and_their_types_told():
    found = _check({"a": A.astype(np.float32), "b": B}, {"a": A, "b": B})
    reason = "2 of 2 equal, stored as float32, float64"
    assert found == Check("dense", "passed", reason)
    none = "neither the model nor the file has dense weights"
    assert _check({}, {}) == Check("dense", "passed", none)


def test_without_weights_or_a_reader_it_is_skipped():
    reason = "the dense weights of the reference are not given"
    assert dense_check(PATH, _Reader({}), None) == Check("dense", "skipped", reason)
    reason = "dense tensors of '.onnx' files cannot be read"
    other = dense_check(PATH, object(), DenseReference({}, {}))  # type: ignore[arg-type]
    assert other == Check("dense", "skipped", reason)


def test_a_weight_that_the_file_palettizes_is_not_found_and_not_wrong():
    found = _check({"b": B}, {"a.weight": A, "b": B}, ["a.weight"])
    reason = "1 of 2 equal, stored as float64; not found in the file: a.weight (192 bytes)"
    assert found == Check("dense", "passed", reason)


def test_a_bias_of_one_value_may_be_there_as_a_number():
    found = _check({"a.weight": A[:1]}, {"a.weight": A[:1], "a.bias": BIAS[:1]})
    assert found.status == "passed"
    assert "not found in the file: a.bias (8 bytes)" in found.reason


def test_a_changed_weight_is_told_by_its_largest_difference_and_by_its_length():
    changed = A.copy()
    changed[0, 0] += 0.25 * np.linalg.norm(A)
    found = _check({"a": changed, "b": A[::-1]}, {"a": A, "b": B})
    largest = 0.25 * np.linalg.norm(A)
    assert found.status == "failed"
    assert found.reason.startswith(f"a: off by up to {largest:.3g}, 25 % of its length")
    several = _check({"a": changed, "b": 9 + B}, {"a": A, "b": B})
    assert several.reason.count("; b: off by up to 9, ") == 1


def test_the_values_of_another_weight_are_told_by_its_name():
    found = _check({"a": A[::-1], "b": B}, {"a": A, "b": B, "c": A[::-1]})
    largest = np.abs(A[::-1] - A).max()
    told = f"a: off by up to {largest:.3g}; the file has the values of c there"
    assert found == Check("dense", "failed", told)


def test_what_is_on_one_side_alone_is_listed_the_largest_first():
    lacking = {f"l{n}": np.ones(size) for n, size in enumerate((150, 30, 20, 2, 20))}
    strange = {f"s{n}": 5 + np.arange(size / 1) for n, size in enumerate((11, 1300))}
    zero = {"x.bias": np.zeros(3), "y.bias_ih": np.zeros(2)}
    found = _check({"a": A, **strange}, {"a": A, **lacking, **zero})
    assert found == Check(
        "dense",
        "passed",
        "1 of 8 equal, stored as float64; "
        "not found in the file: l0 (1,200 bytes), l1 (240 bytes), l2 (160 bytes) "
        "and 2 more (176 bytes); "
        "in the file but no weight of the model: s1 (10,400 bytes), s0 (88 bytes); "
        "zero in the model, and so left out: x.bias (24 bytes), y.bias_ih (16 bytes)",
    )


def test_where_nothing_is_equal_nothing_was_compared():
    strange, lacking = {"s": 5 + np.arange(3.0)}, {"a": A}
    told = {
        "s": "in the file but no weight of the model: s (24 bytes)",
        "a": "not found in the file: a (192 bytes)",
    }
    for stored, held, reason in (
        (strange, lacking, f"{told['a']}; {told['s']}"),
        (strange, {}, told["s"]),
        ({}, lacking, told["a"]),
    ):
        found = _check(stored, held)
        assert found == Check("dense", "skipped", f"none could be compared; {reason}")
    zeros = _check({}, {"a.bias": np.zeros(3)})
    assert zeros.status == "passed"
    reason = "0 of 1 equal; zero in the model, and so left out: a.bias (24 bytes)"
    assert zeros.reason == reason


class TestBias:
    """One that is not zero must be there if the weight beside it is."""

    @pytest.mark.parametrize(
        ("weight", "bias"),
        [
            ("a.weight", "a.bias"),
            ("weight", "bias"),
            ("l.weight_ih_l0", "l.bias_ih_l0"),
            ("bias.weight", "bias.bias"),
        ],
    )
    def test_it_fails_beside_a_weight_of_either_kind(self, weight, bias):
        told = f"{bias}: not in the file, and not zero"
        held = {weight: A, bias: BIAS, "empty.bias": np.zeros(0)}
        assert _check({"x": A}, held) == Check("dense", "failed", told)
        assert _check({}, {bias: BIAS}, [weight]) == Check("dense", "failed", told)

    @pytest.mark.parametrize(
        ("held", "stored"),
        [
            ({"c.weight": A, "d.bias": BIAS}, {}),  # of another layer
            ({"c.weight": A, "c.offset": BIAS}, {}),  # no bias, by its name
            ({"c.weight": A, "bias.offset": BIAS}, {}),
            ({"c.weight": A, "c.bias": np.full(6, 0.5)}, {}),  # it may be there as a number
            ({"c.weight": A, "c.bias": BIAS}, {"s": 9 * np.arange(12.0)}),  # or in that
        ],
    )
    def test_it_is_listed_where_it_may_be_elsewhere(self, held, stored):
        found = _check({"c.weight": A, **stored}, held)
        (name,) = set(held) - {"c.weight"}
        assert found.status == "passed"
        assert f"not found in the file: {name} (48 bytes)" in found.reason

    def test_two_kinds_of_fault_are_told_together(self):
        found = _check({"a.weight": A, "b": 9 + B}, {"a.weight": A, "a.bias": BIAS, "b": B})
        assert found.reason.startswith("b: off by up to 9, ")
        assert found.reason.endswith("; a.bias: not in the file, and not zero")
