"""Files of IR 3, which list every tensor among their inputs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

import dkm_deploy as dkm
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


def test_weights_that_a_caller_may_replace_are_not(tmp_path):
    made = model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], [tensor("w", values(64, 32))], ir=8
    )
    made.graph.input.append(helper.make_tensor_value_info("w", 1, [64, 32]))
    path = save(tmp_path / "m.onnx", made)
    with pytest.raises(dkm.DkmError, match="so that a caller may replace it"):
        dkm.palettize_file(path, tmp_path / "small.onnx", 4)
