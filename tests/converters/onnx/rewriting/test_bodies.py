"""Weights that If, Loop and Scan hand into their bodies and out of them."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

import dkm_deploy as dkm
from tests.converters.onnx.models import constant, graph, model, save, tensor, value, values
from tests.converters.onnx.rewriting.palettized import X, check

GO = value("go", [], TensorProto.BOOL)
GO_ON = value("go_on", [], TensorProto.BOOL)


def loop(weight_out, *nodes):
    """``y = x @ w`` three times, where the loop carries ``w``; ``nodes`` give ``weight_out``."""
    body = graph(
        [
            helper.make_node("MatMul", ["state", "weight"], ["raw"]),
            helper.make_node("Tanh", ["raw"], ["next"]),
            helper.make_node("Identity", ["go"], ["go_on"]),
            *nodes,
        ],
        inputs=[value("i", [], TensorProto.INT64), GO, "state", value("weight", [64, 64])],
        outputs=[GO_ON, "next", value(weight_out, [64, 64])],
    )
    outer = [
        constant("times", np.array(3, np.int64)),
        helper.make_node("Loop", ["times", "", "x", "w"], ["y", "last"], body=body),
        helper.make_node("MatMul", ["y", "last"], ["z"]),
    ]
    ends = {"inputs": [value("x", ["n", 64])], "outputs": [value("z", ["n", 64])]}
    return model(outer, [tensor("w", 0.1 * values(64, 64))], **ends)


def test_a_weight_that_a_loop_carries(tmp_path):
    proto = loop("same", helper.make_node("Identity", ["weight"], ["same"]))
    result, _ = check(tmp_path, proto, {"x": X}, tolerance=1e-5)
    assert [*result.palettes] == ["w"]


def test_a_weight_that_a_loop_changes_stays_dense(tmp_path):
    proto = loop("grown", helper.make_node("Add", ["weight", "weight"], ["grown"]))
    path = save(tmp_path / "m.onnx", proto)
    with pytest.raises(dkm.DkmError, match="w: input 0 of Add"):
        dkm.palettize_file(path, tmp_path / "small.onnx", 4)


def test_layers_that_a_scan_reads_one_by_one(tmp_path):
    """As exporters of JAX write a stack of equal layers: the weights of all in one tensor."""
    body = graph(
        [
            helper.make_node("MatMul", ["state", "layer"], ["raw"]),
            helper.make_node("Tanh", ["raw"], ["next"]),
        ],
        inputs=["state", value("layer", [64, 64])],
        outputs=["next"],
    )
    nodes = [helper.make_node("Scan", ["x", "stack"], ["y"], body=body, num_scan_inputs=1)]
    ends = {"inputs": [value("x", ["n", 64])], "outputs": [value("y", ["n", 64])]}
    proto = model(nodes, [tensor("stack", 0.1 * values(5, 64, 64))], **ends)
    recipe = dkm.Recipe.uniform(4, group_size=1)
    result, _ = check(tmp_path, proto, {"x": X}, recipe, tolerance=1e-5)
    assert result.palettes["stack"].groups == (5, 1, 1)


def test_weights_that_the_branches_of_an_if_give(tmp_path):
    branches = {
        f"{name}_branch": graph(
            [helper.make_node("Identity", [name], [f"{name}_out"])],
            inputs=(),
            outputs=[value(f"{name}_out", [64, 32])],
            name=name,
        )
        for name in ("then", "else")
    }
    nodes = [
        helper.make_node("If", ["flag"], ["chosen"], **branches),
        helper.make_node("MatMul", ["x", "chosen"], ["y"]),
    ]
    tensors = [tensor("then", values(64, 32)), tensor("else", values(64, 32, seed=1))]
    ends = {"inputs": ["x", value("flag", [], TensorProto.BOOL)]}
    proto = model(nodes, tensors, **ends)
    for flag in (True, False):
        result, _ = check(tmp_path, proto, {"x": X, "flag": np.array(flag)}, tolerance=1e-5)
    assert [*result.palettes] == ["then", "else"]


def test_a_weight_under_a_name_that_two_bodies_use_stays_dense(tmp_path):
    """Names are looked up in the whole model, so what becomes of it is not known."""

    def body(name):
        return graph(
            [helper.make_node(name, ["state", "part"], ["next"])],
            inputs=["state", value("part", [64, 64])],
            outputs=["next"],
        )

    nodes = [
        helper.make_node("Scan", ["x", "v"], ["h"], body=body("MatMul"), num_scan_inputs=1),
        helper.make_node("Scan", ["h", "u"], ["y"], body=body("Add"), num_scan_inputs=1),
        helper.make_node("MatMul", ["x", "w"], ["z"]),
    ]
    tensors = [tensor(name, values(2, 64, 64)) for name in "vu"] + [tensor("w", values(64, 32))]
    ends = {"inputs": [value("x", [64, 64])], "outputs": ["y", "z"]}
    path = save(tmp_path / "m.onnx", model(nodes, tensors, **ends))
    result = dkm.palettize_file(path, tmp_path / "small.onnx", 4)
    assert [*result.palettes] == ["w"]
    assert set(result.dense) == {"v", "u"}
