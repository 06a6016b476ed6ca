"""The forms of a dense weight: orders of dimensions, and what folding makes of normalizations."""

from __future__ import annotations

import numpy as np
import pytest

from dkm_deploy.validation.dense_weights.layouts import folded_tensors, layouts
from dkm_deploy.validation.dense_weights.reference import DenseReference


def _array(*shape):
    return np.arange(np.prod(shape)).reshape(shape)


@pytest.mark.parametrize(
    ("shape", "count"),
    [((3,), 1), ((2, 1, 3), 2), ((2, 3, 4), 7), ((2, 3, 4, 5), 25), ((2,) * 5, 3), ((1, 1), 1)],
)
def test_every_order_of_up_to_four_dimensions_and_kernels_turned_around(shape, count):
    array = _array(*shape)
    found = list(layouts(array))
    assert len({a.tobytes() for a in found}) == len(found) == count
    assert all(sorted(a.flat) == sorted(array.flat) for a in found)


def test_orders_keep_the_values_in_place():
    array = _array(2, 1, 3, 4)
    found = [a.tolist() for a in layouts(array)]
    for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2)):
        assert array[:, 0].transpose(order).tolist() in found
    assert found[-1] == array[:, 0, :, ::-1].tolist()
    many = _array(2, 3, 2, 3, 2)
    given, back, turned = layouts(many)
    assert (given.tolist(), back.tolist()) == (many.tolist(), many.T.tolist())
    assert turned.tolist() == many[:, :, ::-1, ::-1, ::-1].tolist()


NORM = {
    "running_mean": [6.0, -2.0],
    "running_var": [3.0, 8.0],
    "weight": [4.0, 12.0],
    "bias": [1.0, -1.0],
}
"""With an epsilon of 1 the deviation is [2, 3], the scale [2, 4], mean times scale [12, -8]."""
SOURCES = tuple(f"n.{name}" for name in NORM)


def _folded(size, tensors=(), norm=NORM, name="n"):
    """What folding gives, as plain lists."""
    start = f"{name}." if name else ""
    held = {start + key: np.array(value, np.float32) for key, value in norm.items()}
    held |= {key: np.array(value, np.float32) for key, value in dict(tensors).items()}
    found = list(folded_tensors(DenseReference(held, {name: 1.0}), size))
    assert all(form.values.shape == form.operands.shape for form in found)
    return [(form.sources, form.values.tolist(), form.operands.tolist()) for form in found]


def test_a_normalization_alone():
    assert _folded(2) == [
        (SOURCES, values, operands)
        for values, operands in (
            ([2, 4], [2, 4]),
            ([-11, 7], [13, 9]),
            ([2, 3], [2, 3]),
            ([1 / 2, 1 / 3], [1 / 2, 1 / 3]),
            ([4, 9], [4, 9]),
            ([-6, 2], [6, 2]),
            ([12, -8], [12, 8]),
            ([3, -2 / 3], [3, 2 / 3]),
        )
    ]
    assert _folded(3) == []


def test_one_without_weights_of_its_own_scales_by_its_deviation():
    found = _folded(2, norm={"running_var": [3.0, 15.0]}, name="")
    assert {form[0] for form in found} == {("running_var",)}
    assert [form[1] for form in found][:3] == [[0.5, 0.25], [0, 0], [2, 4]]


def test_the_weight_before_it_is_scaled_along_its_outputs():
    sources = ("c.weight", *SOURCES)
    rows = _folded(6, {"c.weight": [[1, -2, 3], [4, 5, 6]]})
    values = [[2, -4, 6], [16, 20, 24]]
    assert rows[0] == (sources, values, np.abs(values).tolist())
    columns = _folded(6, {"c.weight": [[1, -2], [3, 4], [5, 6]]})
    values = [[2, -8], [6, 16], [10, 24]]
    assert columns[0] == (sources, values, np.abs(values).tolist())
    both = [form[1] for form in _folded(4, {"c.weight": [[1, 1], [1, 1]]}) if "c.weight" in form[0]]
    assert both[:2] == [[[2, 2], [4, 4]], [[2, 4], [2, 4]]]
    kernel = _folded(8, {"c.weight": np.ones((1, 2, 2, 2))})
    assert kernel[0][1] == [[[[2, 2], [2, 2]], [[4, 4], [4, 4]]]]


def test_the_bias_before_it_is_shifted_and_scaled():
    found = [form for form in _folded(2, {"c.bias": [1, 1]}) if form[0] != SOURCES]
    assert found == [(("c.bias", *SOURCES), [-9, 11], [15, 13])]
    assert [form for form in _folded(3, {"c.bias": [1, 1, 1]}) if "c.bias" in form[0]] == []


@pytest.mark.parametrize(
    ("factor", "products"),
    [
        (3.0, [[[3, 3], [3, 3], [3, 3]]] * 2),
        ([3.0], [[[3, 3], [3, 3], [3, 3]]] * 2),
        ([1, 2, -3], [[[1, 1], [2, 2], [-3, -3]]]),
        ([[1], [2], [3]], [[[1, 1], [2, 2], [3, 3]]]),
        ([5, 6], [[[5, 6], [5, 6], [5, 6]]]),
        ([1, 2, 3, 4], []),
    ],
)
def test_a_weight_times_a_factor_for_all_or_for_each_output(factor, products):
    tensors = {"c.weight": np.ones((3, 2), np.float32), "s": np.array(factor, np.float32)}
    found = list(folded_tensors(DenseReference(tensors, {}), 6))
    assert [form.values.tolist() for form in found] == products
    assert {form.sources for form in found} <= {("c.weight", "s")}
    assert all(form.operands.tolist() == np.abs(form.values).tolist() for form in found)


def test_a_matrix_is_no_factor():
    tensors = {"c.weight": np.ones((4, 3)), "s": np.ones((2, 2))}
    assert list(folded_tensors(DenseReference(tensors, {}), 12)) == []


def test_every_normalization_is_tried():
    norms = {f"{n}.running_var": np.full(2, v) for n, v in (("a", 3.0), ("b", 15.0))}
    found = list(folded_tensors(DenseReference(norms | {"c": np.ones(2)}, {"a": 1.0, "b": 1.0}), 2))
    assert {form.sources for form in found} >= {
        *(("a.running_var",), ("b.running_var",)),
        *(("c", "a.running_var"), ("c", "b.running_var")),
        *(("a.running_var", "b.running_var"), ("b.running_var", "a.running_var")),
    }
    assert ("a.running_var", "a.running_var") not in {form.sources for form in found}
