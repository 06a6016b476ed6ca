"""Where a graph decodes a palette: found by names, types and edges, whatever the nodes compute."""

from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters.onnx.reading.find_decodes import Decode, find_decodes

LUT = numpy_helper.from_array(np.zeros((1, 1, 4, 1), np.float32), "w.lut")
PLANE = numpy_helper.from_array(np.zeros((4, 2), np.uint8), "w.indices")
SCALE = numpy_helper.from_array(np.ones((4, 1), np.float32), "w.scale")
SHAPE = numpy_helper.from_array(np.array([4, 2]), "shape")


def node(op, inputs, output, **attributes):
    return helper.make_node(op, inputs.split(), [output], **attributes)


def model(nodes, tensors=(LUT, PLANE, SCALE, SHAPE), inputs=("x", "ids")):
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inputs]
    graph = helper.make_graph(nodes, "g", values, [], initializer=tensors)
    return helper.make_model(graph)


def found(nodes, **parts):
    return list(find_decodes(model(nodes, **parts)))


def named(*tensors):
    return {tensor.name: tensor for tensor in tensors}


LOOKUP = node("Gather", "w.lut w.indices", "g")
WHOLE = (LOOKUP, node("Reshape", "g shape", "w"))
OF_WHOLE = Decode(
    weight="w",
    lut=LUT,
    scale=None,
    planes=(PLANE,),
    end="w",
    ids=None,
    lut_codes=None,
    turned=False,
    nodes=WHOLE,
    tensors=named(LUT, PLANE, SHAPE),
    inputs=(),
)


def test_a_weight_is_all_that_its_value_is_made_of():
    unrelated = node("MatMul", "x w", "y")
    assert found([*WHOLE, unrelated]) == [OF_WHOLE]


def test_nodes_of_a_decode_stay_in_the_order_of_the_graph():
    steps = [node("Identity", "w.indices", "a"), node("Identity", "w.lut", "b")]
    nodes = [*steps, node("Gather", "b a", "c"), node("Reshape", "c shape", "w")]
    assert [decode.nodes for decode in found(nodes)] == [tuple(nodes)]


def test_a_value_that_is_used_twice_counts_once():
    nodes = [LOOKUP, node("Add", "g g", "h"), node("Add", "g h", "w")]
    assert [decode.nodes for decode in found(nodes)] == [tuple(nodes)]


def test_the_scale_that_a_weight_is_multiplied_by_is_part_of_it():
    nodes = (LOOKUP, node("Mul", "g w.scale", "w"))
    tensors = named(LUT, PLANE, SCALE)
    assert found(nodes) == [replace(OF_WHOLE, scale=SCALE, nodes=nodes, tensors=tensors)]


def test_a_transposed_weight_ends_in_its_own_name():
    nodes = (LOOKUP, node("Reshape", "g shape", "w.T"))
    assert found(nodes) == [replace(OF_WHOLE, end="w.T", turned=True, nodes=nodes)]


@pytest.mark.parametrize(("end", "axis"), [("w", 0), ("w.T", 1)])
def test_parts_of_a_weight_are_put_together(end, axis):
    """Along the output channels, which are the columns of a transposed weight."""
    parts = [f"{end}.part.0", f"{end}.part.1"]
    nodes = (LOOKUP, *(node("Reshape", "g shape", part) for part in parts))
    whole = helper.make_node("Concat", parts, [end], axis=axis)
    beyond = node("Reshape", "g shape", f"{end}.part.3")  # there is no .part.2 before it
    expected = replace(OF_WHOLE, end=end, turned=bool(axis), nodes=(*nodes, whole))
    assert found([*nodes, beyond]) == [expected]


def test_a_weight_as_codes_is_decoded_from_its_lut_as_codes():
    steps = (node("Cast", "w.lut", "w.lut_codes"), node("Gather", "w.lut_codes w.indices", "c"))
    nodes = (*steps, node("Reshape", "c shape", "w.codes"))
    assert found(nodes) == [replace(OF_WHOLE, end="w.codes", lut_codes="w.lut_codes", nodes=nodes)]


def test_every_form_of_a_weight_in_the_graph_is_found():
    ends = ("w", "w.T", "w.codes")
    nodes = [LOOKUP, *(node("Reshape", "g shape", end) for end in ends)]
    assert [decode.end for decode in found(nodes)] == list(ends)


def test_weights_are_found_in_the_order_of_their_luts():
    other = [
        numpy_helper.from_array(numpy_helper.to_array(t), f"v{t.name[1:]}") for t in (LUT, PLANE)
    ]
    nodes = [*WHOLE, node("Gather", "v.lut v.indices", "v")]
    for tensors, names in [((LUT, other[0]), ["w", "v"]), ((other[0], LUT), ["v", "w"])]:
        decodes = found(nodes, tensors=(*tensors, other[1], PLANE, SHAPE))
        assert [decode.weight for decode in decodes] == names


@pytest.mark.parametrize("kind", [TensorProto.UINT8, TensorProto.UINT4, TensorProto.UINT2])
def test_packed_bytes_may_be_of_each_unsigned_type(kind):
    plane = TensorProto(name="w.indices", data_type=kind, dims=[4, 2], raw_data=bytes(8))
    (decode,) = found(WHOLE, tensors=(LUT, plane, SHAPE))
    assert decode.planes == (plane,)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE])
def test_a_lut_may_be_of_each_float_type_and_of_three_dimensions_or_more(kind):
    lut = TensorProto(name="w.lut", data_type=kind, dims=[1, 4, 1])
    (decode,) = found(WHOLE, tensors=(lut, PLANE, SHAPE))
    assert decode.lut == lut


NO_LUT = {
    "of integers": {"data_type": TensorProto.INT32},
    "of two dimensions": {"dims": [4, 1]},
    "called otherwise": {"name": "w.table"},
}


@pytest.mark.parametrize("case", NO_LUT)
def test_what_is_no_lut_decodes_nothing(case):
    fields = {"name": "w.lut", "data_type": TensorProto.FLOAT, "dims": [1, 1, 4, 1]}
    lut = TensorProto(**fields | NO_LUT[case])
    nodes = [node("Gather", f"{lut.name} w.indices", "g"), *WHOLE[1:]]
    assert found(nodes, tensors=(lut, PLANE, SHAPE)) == []


NO_DECODE = {
    "the weight is made of something else": [node("Identity", "w.indices", "w")],
    "no packed bytes are used": [node("Reshape", "w.lut shape", "w")],
    "the weight is not made at all": [LOOKUP, node("Reshape", "g shape", "v")],
    "codes are in parts": [LOOKUP, node("Reshape", "g shape", "w.codes.part.0")],
    "parts do not start at 0": [LOOKUP, node("Reshape", "g shape", "w.part.1")],
}


@pytest.mark.parametrize("case", NO_DECODE)
def test_what_is_no_decode_is_left_alone(case):
    assert found(NO_DECODE[case]) == []


def test_a_lut_that_a_caller_may_replace_decodes_nothing():
    assert found(WHOLE, inputs=("w.lut",)) == []


def test_one_weight_that_is_none_hides_no_other():
    """Here ``w`` is made of something else, and ``w.T`` and ``v`` are decoded."""
    lut = numpy_helper.from_array(numpy_helper.to_array(LUT), "v.lut")
    nodes = [
        node("Identity", "x", "w"),
        LOOKUP,
        node("Reshape", "g shape", "w.T"),
        node("Gather", "v.lut w.indices", "v"),
    ]
    assert [decode.end for decode in found(nodes, tensors=(LUT, lut, PLANE, SHAPE))] == ["w.T", "v"]


def test_other_values_that_a_weight_depends_on_are_listed_in_order():
    """Inputs, sizes of what it is applied to, and what the graph does not define."""
    size = node("Size", "x", "size")
    steps = (node("Add", "size x", "a"), node("Add", "a outer", "b"), node("Add", "g b", "w"))
    (decode,) = found([size, LOOKUP, *steps])
    assert decode.inputs == ("outer", "size", "x")
    assert decode.nodes == (LOOKUP, *steps)  # without what gives the size


def test_an_optional_input_that_is_left_out_is_no_value():
    nodes = [LOOKUP, helper.make_node("Clip", ["g", "", "x"], ["w"])]
    (decode,) = found(nodes)
    assert decode.inputs == ("x",)


def test_an_optional_output_that_is_left_out_is_no_value():
    left_out = helper.make_node("Split", ["x"], ["", ""])
    assert found([LOOKUP, left_out, *WHOLE[1:]]) == [OF_WHOLE]
