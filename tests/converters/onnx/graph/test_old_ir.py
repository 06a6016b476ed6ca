"""Files of IR 3, which list every tensor among their inputs."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

import dkm_deploy as dkm
from converters.onnx.rewriting.plan_subject import OnnxSubject
from tests.converters.onnx.models import any_shape, model, save, tensor, value, values


def test_weights_that_are_listed_because_they_must_be_are_palettized(tmp_path):
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["y"])]
    weights = [tensor("w", values(32, 16, 3, 3)), tensor("b", values(32))]
    made = model(nodes, weights, opset=13, ir=3, inputs=[value("x", any_shape(4))])
    listed = [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in weights]
    made.graph.input.extend(listed)
    path = save(tmp_path / "zoo.onnx", made)
    done = dkm.palettize_file(path, tmp_path / "small.onnx", 4)
    assert list(done.palettes) == ["w"]
    small = onnx.load(tmp_path / "small.onnx")
    assert [one.name for one in small.graph.input] == ["x"]
    assert small.ir_version >= 4
    inputs = {"x": np.float32(values(2, 16, 8, 8))}
    assert dkm.validate(done, original=path, inputs=inputs, require=("parity",))


def product(path, listed):
    """``y = x @ v @ w`` of IR 8, with some of its weights among the inputs."""
    nodes = [helper.make_node("MatMul", [a, b], [c]) for a, b, c in ("xvh", "hwy")]
    weights = [tensor("v", values(48, 64)), tensor("w", values(64, 32))]
    ends = {"inputs": [value("x", ["n", 48])], "outputs": [value("y", ["n", 32])]}
    made = model(nodes, weights, ir=8, **ends)
    infos = [helper.make_tensor_value_info(t.name, 1, t.dims) for t in weights if t.name in listed]
    made.graph.input.extend(infos)
    return save(path, made)


def test_weights_of_which_a_newer_file_lists_all_are_palettized_with_a_note(tmp_path):
    path = product(tmp_path / "m.onnx", "vw")
    done = dkm.palettize_file(path, tmp_path / "small.onnx", 4)
    assert list(done.palettes) == ["v", "w"]
    assert [one.name for one in onnx.load(done.path).graph.input] == ["x"]
    (note,) = done.notes
    assert note.startswith("all 2 initializers were listed as inputs too")
    assert dkm.validate(done, original=path, inputs=values(2, 48), require=("parity",))
    assert set(OnnxSubject(path, [(values(2, 48), None)], None).shapes) == {"v", "w"}


def test_weights_that_a_caller_may_replace_stay_dense_inputs(tmp_path):
    path = product(tmp_path / "m.onnx", "w")
    done = dkm.palettize_file(path, tmp_path / "small.onnx", 4)
    assert list(done.palettes) == ["v"]
    assert "so that a caller may replace it" in done.dense["w"]
    assert [one.name for one in onnx.load(done.path).graph.input] == ["x", "w"]
    assert not done.notes
