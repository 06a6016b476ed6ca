"""Which stored tensor is which weight, by name and by value; plain arrays in place of a file."""

from __future__ import annotations

import numpy as np
import pytest

from dkm_deploy.formats.dense_tensor import DenseTensor
from dkm_deploy.validation.dense_weights.match import DenseComparison, compare
from dkm_deploy.validation.dense_weights.reference import DenseReference

RANDOM = np.random.default_rng(0)
A, B, C = (RANDOM.normal(size=(8, 6)).astype(np.float32) for _ in range(3))
NOISE = np.float32(0.05) * RANDOM.normal(size=(8, 6)).astype(np.float32)


def _compare(stored, tensors, epsilons=None):
    """Compare tensors by their names in a file; those called None have no name."""
    listed = [
        DenseTensor(name or "", array.nbytes, lambda array=array: array) for name, array in stored
    ]
    held = {name: np.asarray(array) for name, array in tensors.items()}
    return compare(listed, DenseReference(held, epsilons or {}))


def _wrong(found):
    return [(difference.weight, difference.held) for difference in found.wrong]


def test_a_weight_is_found_under_any_name_in_any_order_and_type():
    found = _compare([("const_1", A.T.astype(np.float16)), (None, B.reshape(-1))], {"a": A, "b": B})
    assert found == DenseComparison({"a", "b"}, [], {"float16", "float32"}, {}, set())


def test_equal_weights_are_stored_once():
    assert _compare([("x", A)], {"a": A, "b": A.T, "c": C}).equal == {"a", "b"}


@pytest.mark.parametrize("name", ["block.0.Weight", "block_0_weight", "Block..0-weight"])
def test_a_tensor_with_the_name_of_a_weight_is_that_weight(name):
    found = _compare([(name, A + 5)], {"block.0.weight": A, "b": B})
    assert _wrong(found) == [("block.0.weight", "")]
    assert found.wrong[0].largest == pytest.approx(5)
    assert found.wrong[0].relative == pytest.approx(5 * np.sqrt(48) / np.linalg.norm(A))
    assert (found.equal, found.strange) == (set(), {})


def test_the_form_that_fits_best_tells_how_far_it_is():
    (found,) = _compare([("a", (A + NOISE).T)], {"a": A, "b": B}).wrong
    assert found.largest == np.abs((A + NOISE).astype(np.float64) - A).max()
    assert found.relative < 0.1


def test_values_of_other_weights_under_a_name_are_told():
    found = _compare([("a", B), ("b", B)], {"a": A, "b": B, "c": B})
    assert _wrong(found) == [("a", "b, c")]
    assert found.equal == {"b", "c"}


def test_a_name_that_two_weights_share_tells_nothing():
    found = _compare([("a_b", A + 5)], {"a.b": A, "a_b": B})
    assert (found.wrong, found.strange) == ([], {"a_b": A.nbytes})


def test_a_name_with_another_size_tells_nothing():
    found = _compare([("a", 9 + np.arange(5.0))], {"a": A})
    assert (found.wrong, found.strange, found.sizes) == ([], {"a": 40}, {5})


def test_what_is_like_a_weight_is_that_weight_changed():
    found = _compare([(None, A + NOISE)], {"a": A, "b": B})
    assert _wrong(found) == [("a", "")]
    assert found.wrong[0].relative == pytest.approx(
        np.linalg.norm(NOISE) / np.linalg.norm(A), rel=1e-4
    )


def test_unless_the_weight_is_elsewhere_in_the_file():
    for stored in ([("x", A + NOISE), ("y", A)], [("y", A), ("x", A + NOISE)]):
        found = _compare(stored, {"a": A, "b": B})
        assert (found.wrong, found.equal) == ([], {"a"})
        assert (found.strange, found.sizes) == ({"x": A.nbytes}, {48})
    found = _compare([("a", A + 5), ("x", A + NOISE)], {"a": A})
    assert (_wrong(found), found.strange) == ([("a", "")], {"x": A.nbytes})


def test_the_likest_weight_is_told():
    found = _compare([("x", A + NOISE)], {"b": A + 2 * NOISE, "a": A + 3 * NOISE})
    assert _wrong(found) == [("b", "")]


def test_several_tensors_without_a_name_are_told_by_their_place():
    found = _compare([(None, A), (None, C), ("c", 3 + B), (None, np.zeros(7))], {"a": A})
    assert found.strange == {"constant 1": C.nbytes, "c": B.nbytes, "constant 3": 56}
    assert found.sizes == {48}
    assert not found.may_hold(7)


def test_a_lone_number_is_not_strange():
    found = _compare([("x", np.array(3.5)), ("y", np.array([3.5, 4.5]))], {"a": A})
    assert found.strange == {"y": 16}


NORM = {
    "n.running_mean": RANDOM.normal(size=8),
    "n.running_var": RANDOM.uniform(0.5, 2, 8),
    "n.weight": RANDOM.uniform(0.5, 2, 8),
    "n.bias": RANDOM.normal(size=8),
}
SCALE = NORM["n.weight"] / np.sqrt(NORM["n.running_var"] + 1e-3)


def test_a_folded_weight_is_all_that_it_is_made_of():
    stored = (A * SCALE[:, None]).astype(np.float32)
    for values in (stored, stored.T):
        found = _compare([("x", values)], {"c.weight": A} | NORM, {"n": 1e-3})
        assert found.equal == {"c.weight", *NORM}
        assert found.wrong == []


def test_a_folded_weight_that_is_wrong_is_told_by_two_of_its_sources():
    stored = ((A + NOISE) * SCALE[:, None]).astype(np.float32)
    found = _compare([("x", stored)], {"c.weight": A} | NORM, {"n": 1e-3})
    assert _wrong(found) == [("c.weight with n.running_mean", "")]
    named = _compare([("c.weight", stored + 5)], {"c.weight": A} | NORM, {"n": 1e-3})
    assert _wrong(named) == [("c.weight", "")]


def test_a_part_of_a_table_is_the_table():
    for part in (A[2:5], A[[7, 0]], A[:, 1:3].T, A.T[:2]):
        assert _compare([("x", part)], {"b": B[:5], "a": A}).equal == {"a"}
    cube = RANDOM.normal(size=(4, 3, 2))
    assert _compare([("x", cube[1:3])], {"a": cube}).equal == {"a"}
    vector = RANDOM.normal(size=20)
    assert _compare([("x", vector[4:9])], {"a": vector}).equal == {"a"}
    assert _compare([("x", vector[4:6])], {"a": vector}).equal == {"a"}


@pytest.mark.parametrize(
    "stored", [A[:, :2], A[0, :4], A[:1, :1], np.ones((2, 6), np.float32), 5 + A[:2]]
)
def test_what_is_no_part_of_a_table(stored):
    table = A.copy()
    table[:3] = 1
    assert _compare([("x", stored)], {"a": np.r_[table, A + 9]}).equal == set()


def test_rows_that_are_like_those_of_a_table_are_wrong():
    found = _compare([("x", (A + NOISE)[[4, 1, 6]])], {"b": C[:, :4], "a": A})
    assert _wrong(found) == [("a", "")]
    assert found.wrong[0].relative < 0.1


def test_rows_of_a_cube_are_not_those_of_its_transpose():
    cube = RANDOM.normal(size=(4, 3, 2))
    assert _compare([("x", cube.T[:1])], {"a": cube}).equal == set()


def test_rows_of_two_values_may_be_like_those_of_a_table():
    table = RANDOM.normal(size=(20, 2))
    assert _wrong(_compare([("x", 1.02 * table[[4, 1, 6]] + 0.01)], {"a": table})) == [("a", "")]


def test_rows_in_another_order_are_another_table():
    for stored in (A[::-1], (A + NOISE)[::-1]):
        found = _compare([("x", stored)], {"a": A})
        assert (found.equal, found.wrong, found.strange) == (set(), [], {"x": A.nbytes})


def test_single_values_are_near_some_of_any_column():
    column = RANDOM.normal(size=(200, 1))
    stored = column[[9, 3, 5, 1, 7, 2, 8, 4], 0] + 0.01
    found = _compare([("x", stored)], {"a": column})
    assert (found.wrong, found.strange) == ([], {"x": stored.nbytes})


def test_a_scalar_is_a_weight_like_others():
    weights = {"scale": np.array(3.5), "a": A}
    found = _compare([("x", np.array([3.5])), ("y", 5 + A[:2]), ("a", A)], weights)
    assert (found.equal, found.wrong, found.strange) == ({"scale", "a"}, [], {"y": 48})


def test_gates_are_the_weights_that_they_are_of():
    weights = {"l.bias_ih_l0": RANDOM.normal(size=8), "l.bias_hh_l0": RANDOM.normal(size=8)}
    both = sum(weights.values())
    found = _compare([("x", both[[4, 5, 2, 3, 0, 1, 6, 7]])], weights)
    assert found.equal == set(weights)
    wrong = _compare([("x", 1.02 * np.roll(both, 2) + 0.001)], weights)
    assert _wrong(wrong) == [("l.bias_ih_l0 with l.bias_hh_l0", "")]


def test_a_layer_times_a_constant_is_the_programs_own_where_it_has_a_name():
    weights = {"block.c.weight": A, "block.c.bias": B[0], "v": C[0]}
    stored = 1.05 * B[0]
    named = _compare([("x", stored)], weights)
    assert (named.wrong, named.strange) == ([], {"x": stored.nbytes})
    assert _wrong(_compare([(None, stored)], weights)) == [("block.c.bias", "")]
    assert _wrong(_compare([("x", np.float32(1.05) * C[0])], weights)) == [("v", "")]
    flat = {"c.weight": A[0], "c.bias": B[0]}
    assert _wrong(_compare([("x", stored)], flat)) == [("c.bias", "")]


@pytest.mark.parametrize(
    ("sizes", "size", "held"),
    [
        *(({6}, 6, True), ({3}, 6, True), ({12}, 6, True)),
        *(({4}, 6, False), (set(), 6, False), ({4, 5, 2}, 6, True)),
    ],
)
def test_a_vector_may_be_in_parts_or_repeated(sizes, size, held):
    assert DenseComparison(sizes=sizes).may_hold(size) is held
