"""From an ONNX file to an ONNX file: every output is run and compared with its dense twin."""

import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import dkm_deploy as dkm
from tests.converters.onnx.models import (
    any_shape,
    constant,
    graph,
    linear,
    model,
    tensor,
    value,
    values,
)
from tests.converters.onnx.rewriting.palettized import X, check, palettized


@pytest.mark.parametrize("opset", range(7, onnx.defs.onnx_opset_version() + 1))
def test_every_opset_is_kept_and_runs(tmp_path, opset):
    proto = linear(opset)
    result, small = check(tmp_path, proto, {"x": X})
    assert [*result.palettes] == ["w"]
    assert small.opset_import == proto.opset_import
    assert small.ir_version == max(proto.ir_version, 4)
    assert result.bytes_after < 0.3 * result.bytes_before


def test_the_other_name_of_the_default_domain(tmp_path):
    proto = linear()
    proto.opset_import[0].domain = "ai.onnx"
    _, small = check(tmp_path, proto, {"x": X})
    assert small.opset_import == proto.opset_import


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_float_types(tmp_path, dtype):
    check(tmp_path, linear(dtype=dtype), {"x": X.astype(dtype)}, tolerance=1e-3)


@pytest.mark.parametrize("bits", [1, 3, 7])
@pytest.mark.parametrize("layout", [{}, {"cluster_dim": 2}, {"group_size": 16}])
def test_widths_and_layouts(tmp_path, bits, layout):
    recipe = dkm.Recipe.uniform(bits, **layout)
    weight = [tensor("w", values(64, 128))]
    proto = model([helper.make_node("MatMul", ["x", "w"], ["y"])], weight)
    result, _ = check(tmp_path, proto, {"x": X}, recipe, tolerance=1e-5)
    assert result.palettes["w"].bits == bits


def test_a_convolution_and_its_shape_are_unchanged_outside(tmp_path):
    nodes = [helper.make_node("Conv", ["x", "k", "b"], ["y"], name="first", pads=[1, 1, 1, 1])]
    tensors = [tensor("k", values(32, 3, 3, 3)), tensor("b", values(32))]
    ends = [value("x", ["n", 3, "h", "w"])], [value("y", ["n", 32, "h", "w"])]
    proto = model(nodes, tensors, inputs=ends[0], outputs=ends[1])
    proto.producer_name, proto.doc_string, proto.model_version = "mine", "about it", 3
    proto.metadata_props.add(key="author", value="me")
    result, small = check(tmp_path, proto, {"x": values(2, 3, 8, 8)}, tolerance=1e-5)
    assert [*result.palettes] == ["k"]
    assert (small.graph.input, small.graph.output) == (proto.graph.input, proto.graph.output)
    assert small.graph.node[-1] == proto.graph.node[0]
    for part in ("producer_name", "doc_string", "model_version", "metadata_props"):
        assert getattr(small, part) == getattr(proto, part)


def test_a_weight_that_several_nodes_use_is_stored_once(tmp_path):
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Transpose", ["table"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["rows", "turned"], ["y"]),
    ]
    ids = value("ids", ["n"], TensorProto.INT64)
    proto = model(nodes, [tensor("table", values(100, 16))], inputs=[ids])
    result, small = check(tmp_path, proto, {"ids": np.array([3, 99, 0])}, tolerance=1e-5)
    assert [*result.palettes] == ["table"]
    assert sum(t.data_type == TensorProto.UINT8 for t in small.graph.initializer) == 1


def test_constants_and_chains_of_identities(tmp_path):
    nodes = [
        constant("w", values(64, 32)),
        helper.make_node("Identity", ["w"], ["w1"]),
        helper.make_node("Identity", ["w1"], ["w2"]),
        helper.make_node("MatMul", ["x", "w2"], ["hidden"]),
        helper.make_node("Identity", ["v"], ["v1"]),
        helper.make_node("Gemm", ["hidden", "v1"], ["y"], transB=1),
    ]
    proto = model(nodes, [tensor("v", values(48, 32))])
    result, small = check(tmp_path, proto, {"x": X}, tolerance=1e-5)
    assert [*result.palettes] == ["v", "w"]
    assert all(node.op_type != "Constant" for node in small.graph.node)


def test_weights_in_and_around_the_branches_of_an_if(tmp_path):
    then_nodes = [
        constant("inner", values(64, 32, seed=1)),
        constant("twin", values(64, 32, seed=2)),
        helper.make_node("MatMul", ["x", "inner"], ["t0"]),
        helper.make_node("MatMul", ["x", "twin"], ["t1"]),
        helper.make_node("Add", ["t0", "t1"], ["t"]),
    ]
    else_nodes = [
        constant("twin", values(64, 32, seed=3)),
        helper.make_node("MatMul", ["x", "twin"], ["e0"]),
        helper.make_node("MatMul", ["x", "outer"], ["e1"]),
        helper.make_node("Add", ["e0", "e1"], ["e"]),
    ]
    branches = {
        "then_branch": graph(then_nodes, inputs=(), outputs=["t"], name="then"),
        "else_branch": graph(else_nodes, inputs=(), outputs=["e"], name="else"),
    }
    branches["then_branch"].value_info.append(value("inner", [64, 32]))
    proto = model(
        [helper.make_node("If", ["flag"], ["y"], **branches)],
        [tensor("outer", values(64, 32))],
        inputs=["x", value("flag", [], TensorProto.BOOL)],
    )
    for flag in (True, False):
        feeds = {"x": X, "flag": np.array(flag)}
        result, _ = check(tmp_path, proto, feeds, tolerance=1e-5)
    assert [*result.palettes] == ["outer", "inner"]
    reason = "another part of the model has a value of the same name"
    assert result.dense == {
        "twin (then_branch of y)": reason,
        "twin (else_branch of y)": reason,
    }


def test_weights_in_the_body_of_a_loop(tmp_path):
    body = graph(
        [
            constant("bias", values(1, 64)),
            helper.make_node("MatMul", ["state", "inner"], ["product"]),
            helper.make_node("MatMul", ["product", "outer"], ["raw"]),
            helper.make_node("Add", ["raw", "bias"], ["sum"]),
            helper.make_node("Tanh", ["sum"], ["next"]),
            helper.make_node("Identity", ["go"], ["go_on"]),
        ],
        [tensor("inner", values(64, 32))],
        inputs=[value("i", [], TensorProto.INT64), value("go", [], TensorProto.BOOL), "state"],
        outputs=[value("go_on", [], TensorProto.BOOL), "next"],
        name="body",
    )
    nodes = [
        constant("times", np.array(3, np.int64)),
        helper.make_node("Loop", ["times", "", "x"], ["y"], body=body),
    ]
    proto = model(nodes, [tensor("outer", values(32, 64))])
    result, _ = check(tmp_path, proto, {"x": X}, tolerance=1e-5)
    assert [*result.palettes] == ["outer", "inner"]
    assert result.dense == {"bias": "input 1 of Add: not the weight of a linear operator"}


def lstm(nodes=(), weight="w"):
    tensors = [
        tensor("w", values(1, 64, 24)),
        tensor("r", values(1, 64, 16)),
        tensor("b", values(1, 128)),
    ]
    cell = helper.make_node("LSTM", ["x", weight, "r", "b"], ["y"], hidden_size=16)
    ends = {"inputs": [value("x", any_shape(3))], "outputs": [value("y", any_shape(4))]}
    return model([*nodes, cell], tensors, **ends)


def test_matrices_of_an_lstm_and_not_its_biases(tmp_path):
    result, _ = check(tmp_path, lstm(), {"x": values(5, 2, 24)}, tolerance=1e-5)
    assert [*result.palettes] == ["w", "r"]
    assert result.dense == {"b": "input 3 of LSTM: not the weight of a linear operator"}


def test_nodes_whose_first_output_is_left_out(tmp_path):
    nodes = [
        helper.make_node("LSTM", ["x", weight, "r"], ["", f"last_{weight}"], hidden_size=16)
        for weight in ("v", "w")
    ]
    nodes.append(helper.make_node("Add", ["last_v", "last_w"], ["y"]))
    tensors = [tensor(name, values(1, 64, 24)) for name in ("v", "w")]
    ends = {"inputs": [value("x", any_shape(3))], "outputs": [value("y", any_shape(3))]}
    proto = model(nodes, [*tensors, tensor("r", values(1, 64, 16))], **ends)
    result, _ = check(tmp_path, proto, {"x": values(5, 2, 24)}, tolerance=1e-5)
    assert [*result.palettes] == ["v", "w", "r"]


def test_gates_that_an_exporter_sorts_with_slice_and_concat(tmp_path):
    ends = [constant(f"c{i}", np.array([i], np.int64)) for i in (0, 16, 64)]
    parts = [
        helper.make_node("Slice", ["w", "c0", "c16", "axis"], ["first"]),
        helper.make_node("Slice", ["w", "c16", "c64", "axis"], ["others"]),
        helper.make_node("Concat", ["others", "first"], ["sorted"], axis=1),
    ]
    proto = lstm([*ends, constant("axis", np.array([1], np.int64)), *parts], "sorted")
    result, _ = check(tmp_path, proto, {"x": values(5, 2, 24)}, tolerance=1e-5)
    assert [*result.palettes] == ["w", "r"]


def test_a_custom_operator_is_kept_and_said_not_to_be_checked(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Twist", ["h", "v"], ["y"], domain="com.example", angle=3),
    ]
    tensors = [tensor("w", values(64, 32)), tensor("v", values(64, 32))]
    result, small = palettized(tmp_path, model(nodes, tensors, domains=["com.example"]))
    assert [*result.palettes] == ["w"]
    assert "com.example::Twist" in result.dense["v"]
    assert result.unchecked == (
        "onnx does not know com.example::Twist, so it did not check their inputs and outputs",
    )
    assert small.graph.node[-1] == nodes[-1]
    assert [one.domain for one in small.opset_import] == ["", "com.example"]


def test_functions_are_kept_and_their_constants_listed(tmp_path):
    body = [constant("c", values(32, 32)), helper.make_node("MatMul", ["a", "c"], ["b"])]
    imports = [helper.make_opsetid("", 17)]
    function = helper.make_function("mine", "Project", ["a"], ["b"], body, imports)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Project", ["h"], ["y"], domain="mine"),
    ]
    tensors = [tensor("w", values(64, 32))]
    proto = model(nodes, tensors, domains=["mine"], functions=[function])
    result, small = check(tmp_path, proto, {"x": X}, tolerance=1e-5)
    assert "in a function of the model" in result.dense["c (mine::Project)"]
    assert small.functions == proto.functions


def test_an_ir_version_that_is_too_low_is_raised_as_little_as_possible(tmp_path):
    nodes = [constant("w", values(64, 32)), helper.make_node("MatMul", ["x", "w"], ["y"])]
    _, small = check(tmp_path, model(nodes, ir=3), {"x": X})
    assert small.ir_version == 4
    _, small = check(tmp_path, model(nodes, ir=5), {"x": X})
    assert small.ir_version == 5


def test_an_invalid_input_that_runs_is_palettized_and_said_not_to_be_checked(tmp_path):
    proto = linear()
    proto.graph.output[0].CopyFrom(value("y", ["batch", 31]))
    result, _ = palettized(tmp_path, proto)
    assert "onnx.checker refuses the input" in result.unchecked[0]


def test_a_recipe_names_the_weights_of_the_file(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("MatMul", ["h", "b"], ["i"]),
        helper.make_node("MatMul", ["i", "c"], ["y"]),
    ]
    tensors = [tensor("a", values(64, 64)), tensor("b", values(64, 64)), tensor("c", values(64, 9))]
    rules = [dkm.Rule("a", skip=True), dkm.Rule("c", dkm.PaletteSpec(2, axis=1, group_size=3))]
    recipe = dkm.Recipe(dkm.PaletteSpec(5), rules)
    result, _ = check(tmp_path, model(nodes, tensors), {"x": X}, recipe, tolerance=1e-4)
    layouts = {name: (p.bits, p.groups) for name, p in result.palettes.items()}
    assert layouts == {"b": (5, (1, 1)), "c": (2, (1, 3))}
    assert result.dense == {"a": "skipped by rule 'a'"}


def test_no_warnings_reach_the_user(tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        palettized(tmp_path, linear())
    assert caught == []
