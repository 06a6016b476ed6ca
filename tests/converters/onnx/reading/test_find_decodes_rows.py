"""Where a graph decodes only rows of a weight, those that its caller's numbers name."""

from dataclasses import replace

import pytest
from onnx import TensorProto, helper

from tests.converters.onnx.reading.test_find_decodes import (
    LUT,
    OF_WHOLE,
    PLANE,
    SCALE,
    SHAPE,
    found,
    named,
    node,
)

# Rows by number: packed bytes, and the scale, are gathered first.
PACKED = node("Gather", "w.indices ids", "packed")
ROWS = (PACKED, node("Gather", "w.lut packed", "values"), node("Reshape", "values shape", "rows"))
OF_ROWS = replace(OF_WHOLE, end="rows", ids="ids", nodes=ROWS)


def test_a_weight_may_depend_on_row_numbers_too():
    nodes = (*ROWS[:2], node("Reshape", "values shape", "w"))
    assert found(nodes) == [replace(OF_ROWS, end="w", nodes=nodes)]


def test_rows_end_in_the_reshape_behind_the_lookup():
    (decode,) = found([*ROWS, node("MatMul", "x rows", "y")])
    assert decode == OF_ROWS
    assert decode.ids == "ids"


def test_rows_by_two_numbers_are_no_decode():
    nodes = [*ROWS[:2], node("Gather", "w.scale x", "s"), node("Mul", "values s", "w")]
    assert found(nodes) == []


def test_what_gives_the_row_numbers_is_no_part_of_a_decode():
    nodes = [node("Cast", "x", "numbers"), node("Gather", "w.indices numbers", "packed"), *ROWS[1:]]
    (decode,) = found(nodes)
    assert (decode.ids, decode.nodes, decode.inputs) == ("numbers", tuple(nodes[1:]), ())


def test_rows_may_be_behind_other_moving_steps():
    """A table of symbols is a reshaped LUT, looked up twice; a type may be changed in between."""
    nodes = [
        node("Reshape", "w.lut shape", "table"),
        node("Gather", "table shape", "entries"),
        node("Cast", "entries", "narrow"),
        PACKED,
        node("Gather", "narrow packed", "values"),
        node("Reshape", "values shape", "rows"),
    ]
    (decode,) = found(nodes)
    assert (decode.end, decode.ids, decode.nodes) == ("rows", "ids", tuple(nodes))


def test_rows_behind_another_operator_are_not_found():
    nodes = [PACKED, node("Gather", "w.lut packed", "v"), node("Add", "v v", "u")]
    assert found([*nodes, node("Reshape", "u shape", "rows")]) == []


def test_rows_are_found_at_each_use():
    more = [
        node("Gather", "w.indices x", "packed_2"),
        node("Gather", "w.lut packed_2", "values_2"),
        node("Reshape", "values_2 shape", "rows_2"),
    ]
    decodes = found([*ROWS, *more])
    assert sorted((d.end, d.ids) for d in decodes) == [("rows", "ids"), ("rows_2", "x")]


SCALES = node("Gather", "w.scale ids", "scales")


@pytest.mark.parametrize("inputs", ["rows scales", "scales rows"])
def test_rows_may_be_multiplied_with_the_scales_of_their_channels(inputs):
    nodes = (*ROWS, SCALES, node("Mul", inputs, "scaled"))
    tensors = named(LUT, PLANE, SHAPE, SCALE)
    expected = replace(OF_ROWS, end="scaled", scale=SCALE, nodes=nodes, tensors=tensors)
    assert found(nodes) == [expected]


NOT_SCALED = {
    "the scales are added": [SCALES, node("Add", "rows scales", "sum")],
    "something else is multiplied": [SCALES, node("Mul", "rows x", "product")],
    "scales of other rows alone": [SCALES, node("Mul", "x scales", "product")],
    "a constant's rows of the scale": [
        node("Gather", "w.scale shape", "scales"),
        node("Mul", "rows scales", "product"),
    ],
}


@pytest.mark.parametrize("case", NOT_SCALED)
def test_rows_without_a_product_with_their_scales_end_before(case):
    assert found([*ROWS, *NOT_SCALED[case]]) == [OF_ROWS]


NO_ROWS = {
    "a table of one dimension": (TensorProto.UINT8, [8], "ids"),
    "a table of floats": (TensorProto.FLOAT, [4, 2], "ids"),
    "constant numbers": (TensorProto.UINT8, [4, 2], "shape"),
}


@pytest.mark.parametrize("case", NO_ROWS)
def test_gathers_that_take_no_rows_by_the_callers_numbers(case):
    kind, dims, ids = NO_ROWS[case]
    table = TensorProto(name="table", data_type=kind, dims=dims)
    nodes = [
        node("Gather", f"table {ids}", "packed"),
        node("Add", "w.indices packed", "sum"),
        node("Gather", "w.lut sum", "w"),
    ]
    (decode,) = found(nodes, tensors=(LUT, PLANE, SHAPE, table))
    assert decode.ids is None
    assert decode.inputs == (() if ids == "shape" else ("ids",))


def test_other_operators_that_read_a_table_take_no_rows():
    nodes = [node("Add", "w.indices ids", "packed"), node("Gather", "w.lut packed", "w")]
    (decode,) = found(nodes)
    assert (decode.ids, decode.inputs) == (None, ("ids",))


def test_a_gather_of_one_input_is_damaged_and_takes_no_rows():
    nodes = [node("Gather", "w.indices", "packed"), node("Gather", "w.lut packed", "w")]
    (decode,) = found(nodes)
    assert decode.ids is None


def test_nodes_without_outputs_end_nothing():
    nodes = [helper.make_node("Reshape", ["w.lut", "shape"], []), *ROWS]
    assert found(nodes) == [OF_ROWS]


def test_a_graph_that_goes_in_circles_has_no_rows():
    steps = [("w.lut", "a"), ("a", "b"), ("b", "a"), ("b", "b")]
    assert found([node("Cast", source, to) for source, to in steps]) == []


def test_a_name_that_is_left_out_links_no_nodes():
    nodes = [
        PACKED,
        node("Add", "w.lut packed", "values"),
        helper.make_node("Reshape", ["w.lut", "shape"], [""]),
        helper.make_node("Reshape", ["", "values"], ["rows"]),
    ]
    assert found(nodes) == []
