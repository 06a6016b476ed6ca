"""The operators that decodes are made of, against onnx's own reference, and what is refused."""

import re

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from converters.onnx.reading.evaluate import evaluate
from dkm_deploy.errors import DkmError

ENOUGH = 100
GRID = np.arange(6, dtype=np.float32).reshape(2, 3)
BYTES = np.array([[7, 200, 3], [4, 5, 6]], np.uint8)


def ints(*values, dtype=np.int64):
    return np.array(values, dtype)


def node_of(op, count, **attributes):
    """A node with inputs ``x0``, ``x1`` .. and output ``y``."""
    return helper.make_node(op, [f"x{i}" for i in range(count)], ["y"], **attributes)


def named(inputs):
    return {f"x{i}": array for i, array in enumerate(inputs)}


def run(op, inputs, limit=ENOUGH, **attributes):
    return evaluate([node_of(op, len(inputs), **attributes)], named(inputs), limit)["y"]


def refused(reason, op, inputs, limit=ENOUGH, **attributes):
    """``reason`` is the end of the message, which is one line that names the value and operator."""
    with pytest.raises(DkmError, match=rf"^'y' \('{op}'\) cannot be run: {re.escape(reason)}$"):
        run(op, inputs, limit, **attributes)


CASES = {
    "Add, broadcast": ("Add", [GRID, GRID[:1]], {}),
    "Sub": ("Sub", [GRID, GRID[:, :1]], {}),
    "Mul": ("Mul", [GRID, GRID + 1], {}),
    "Div of floats": ("Div", [GRID, GRID + 2], {}),
    "Div of integers": ("Div", [BYTES, np.array(4, np.uint8)], {}),
    "Mod": ("Mod", [BYTES, np.array(4, np.uint8)], {}),
    "Min": ("Min", [BYTES, BYTES[::-1].copy()], {}),
    "Round, halves to even": ("Round", [GRID / 2], {}),
    "Identity": ("Identity", [GRID], {}),
    "Size": ("Size", [GRID], {}),
    "Transpose": ("Transpose", [GRID.reshape(1, 2, 3)], {}),
    "Transpose by perm": ("Transpose", [GRID.reshape(1, 2, 3)], {"perm": [1, 0, 2]}),
    "Slice": ("Slice", [GRID, ints(0, 1), ints(2, 3)], {}),
    "Slice from the end": ("Slice", [GRID, ints(-1, 0), ints(2, -1)], {}),
    "Range": ("Range", [np.array(3, np.int32), np.array(13, np.int32), np.array(5, np.int32)], {}),
    "Range downwards": ("Range", [np.array(9), np.array(0), np.array(-4)], {}),
    "Reshape": ("Reshape", [GRID, ints(3, -1)], {}),
    "Reshape that keeps a size": ("Reshape", [GRID, ints(0, 3, 1)], {}),
    "Expand": ("Expand", [GRID[:, :1], ints(4, 1, 3)], {}),
    "Expand to less": ("Expand", [GRID, ints(1)], {}),
    "Concat": ("Concat", [GRID, GRID[:1]], {"axis": 0}),
    "Concat of columns": ("Concat", [GRID, GRID[:, :1], GRID], {"axis": 1}),
    "Gather of rows": ("Gather", [GRID, ints([1, 0], [-1, 1])], {}),
    "Gather of columns": ("Gather", [GRID, ints(2, 0)], {"axis": 1}),
    "Gather of nothing": ("Gather", [GRID[:0], ints()], {}),
    "GatherElements": ("GatherElements", [GRID, ints([1, 0, 1])], {}),
    "GatherElements of columns": ("GatherElements", [GRID, ints([2], [0])], {"axis": 1}),
    "Cast to int64": ("Cast", [GRID], {"to": TensorProto.INT64}),
    "Cast to int32": ("Cast", [BYTES], {"to": TensorProto.INT32}),
    "Cast to uint8": ("Cast", [GRID], {"to": TensorProto.UINT8}),
    "Cast to float": ("Cast", [GRID.astype(np.float16)], {"to": TensorProto.FLOAT}),
    "Cast to double": ("Cast", [GRID], {"to": TensorProto.DOUBLE}),
    "Cast to the same": ("Cast", [GRID], {"to": TensorProto.FLOAT}),
}


@pytest.mark.parametrize("case", CASES)
def test_every_operator_gives_what_onnx_defines(case):
    op, inputs, attributes = CASES[case]
    node = node_of(op, len(inputs), **attributes)
    (expected,) = ReferenceEvaluator(node).run(None, named(inputs))
    found = run(op, inputs, **attributes)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected, strict=True)


def test_elements_are_taken_by_narrow_indices_too():
    index = ints([1, 0, 1], dtype=np.uint8)
    assert run("GatherElements", [GRID, index]).tolist() == [[3, 1, 5]]


def test_elements_are_taken_along_an_axis_counted_from_the_end():
    index = ints([2], [0])
    assert run("GatherElements", [GRID, index], axis=-1).tolist() == [[2], [3]]


COSTS = {
    "Add": ([GRID, GRID[:1]], {}, 6),
    "Mul of a row and a column": ([GRID[:1], GRID[:, :1]], {}, 6),
    "Min of a column and a row": ([GRID[:, :1], GRID[:1]], {}, 6),
    "Concat": ([GRID, GRID[:1]], {"axis": 0}, 9),
    "Expand": ([GRID[:, :1], ints(4, 1, 3)], {}, 24),
    "Expand to less": ([GRID, ints(1)], {}, 6),
    "Gather": ([GRID, ints(0, 1, 0)], {}, 9),
    "Gather of columns": ([GRID, ints(0)], {"axis": 1}, 2),
    "Gather from one row": ([GRID[:1], ints(0, 0)], {}, 6),
    "GatherElements": ([GRID, ints([1, 0, 1])], {}, 3),
    "GatherElements of columns": ([GRID, ints([2], [0])], {"axis": 1}, 2),
    "GatherElements, last axis": ([GRID, ints([2], [0])], {"axis": -1}, 2),
    "GatherElements that broadcasts": ([GRID[:1], ints([0], [0], [0], [0])], {}, 12),
    "Range": ([np.array(3), np.array(13), np.array(5)], {}, 2),
}


@pytest.mark.parametrize("case", COSTS)
def test_a_value_of_more_elements_than_the_limit_is_refused_before_it_is_made(case):
    inputs, attributes, count = COSTS[case]
    op = case.split()[0].rstrip(",")
    assert run(op, inputs, count, **attributes).size == count
    reason = f"ValueError: {count} elements are more than a file of this size can hold"
    refused(reason, op, inputs, count - 1, **attributes)


def test_all_values_together_may_have_four_times_the_limit():
    chain = [helper.make_node("Identity", [f"v{i}"], [f"v{i + 1}"]) for i in range(5)]
    values = evaluate(chain[:4], {"v0": GRID}, GRID.size)
    assert [name for name, value in values.items() if value is GRID] == [f"v{i}" for i in range(5)]
    with pytest.raises(
        DkmError, match=r"^'v5' \('Identity'\) cannot be run: ValueError: 30 elements are more"
    ):
        evaluate(chain, {"v0": GRID}, GRID.size)


REFUSED = {
    "an operator of no decode": (
        "Relu",
        [GRID],
        {},
        "ValueError: palettes are not decoded with this operator",
    ),
    "one of another domain": (
        *("Add", [GRID, GRID], {"domain": "ai.example"}),
        "ValueError: palettes are not decoded with this operator",
    ),
    "a cast to fewer digits": (
        *("Cast", [GRID], {"to": TensorProto.FLOAT16}),
        "TypeError: a cast from float32 to float16, which loses precision",
    ),
    "a cast of integers to floats": (
        *("Cast", [BYTES], {"to": TensorProto.DOUBLE}),
        "TypeError: a cast from uint8 to float64, which loses precision",
    ),
    "a cast to a type of no decode": (
        *("Cast", [BYTES], {"to": TensorProto.INT8}),
        "TypeError: a cast from uint8 to int8, which loses precision",
    ),
    "a cast to nothing": ("Cast", [GRID], {}, "KeyError: 0"),
    "a Reshape with allowzero": (
        *("Reshape", [GRID, ints(2, 3)], {"allowzero": 1}),
        "ValueError: Reshape with allowzero is not supported",
    ),
    "a Slice with more starts than ends": (
        *("Slice", [GRID, ints(0, 0), ints(1)], {}),
        "ValueError: zip() argument 2 is shorter than argument 1",
    ),
    "an overflow": (
        *("Mul", [GRID, np.array(3e38, np.float32)], {}),
        "FloatingPointError: overflow encountered in multiply",
    ),
    "a division by zero": (
        *("Mod", [BYTES, np.array(0, np.uint8)], {}),
        "FloatingPointError: divide by zero encountered in remainder",
    ),
    "a Range without steps": (
        *("Range", [np.array(0), np.array(4), np.array(0)], {}),
        "ZeroDivisionError: integer division or modulo by zero",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_decode_does_is_refused_in_one_line(case):
    op, inputs, attributes, reason = REFUSED[case]
    refused(reason, op, inputs, **attributes)


def test_an_input_that_nothing_gives_is_refused():
    with pytest.raises(DkmError, match=r"^'y' \('Add'\) cannot be run: KeyError: 'x1'$"):
        evaluate([node_of("Add", 2)], {"x0": GRID}, ENOUGH)


def test_all_outputs_of_a_node_are_named_where_it_is_refused():
    node = helper.make_node("Split", ["x0"], ["a", "b"])
    with pytest.raises(DkmError, match=r"^'a, b' \('Split'\) cannot be run: "):
        evaluate([node], {"x0": GRID}, ENOUGH)


def test_a_node_without_outputs_is_refused():
    with pytest.raises(DkmError, match=r"^'' \('Add'\) cannot be run: IndexError: "):
        evaluate([helper.make_node("Add", ["x0", "x0"], [])], {"x0": GRID}, ENOUGH)


def test_a_product_below_the_normal_numbers_is_what_it_is():
    tiny = np.finfo(np.float32).tiny
    product = run("Mul", [np.array(tiny), np.array(0.3, np.float32)])  # and is rounded
    assert 0 < product < tiny


def test_a_value_that_is_known_is_not_made():
    """Neither is its operator looked at; what comes behind is made of the known value."""
    nodes = [
        helper.make_node("Relu", ["x0"], ["known"]),
        helper.make_node("Add", ["known", "known"], ["y"]),
    ]
    values = evaluate(nodes, {"known": GRID}, ENOUGH)
    assert values.keys() == {"known", "y"}
    assert np.array_equal(values["y"], 2 * GRID)
