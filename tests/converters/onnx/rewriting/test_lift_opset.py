"""Files of opset 1 to 6 are lifted to 7 by onnx's version converter, and run to see."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, version_converter

import dkm_deploy as dkm
from tests.converters.onnx.models import LEVELS, model, run, save, tensor, value, values


def old(path, opset=6, hidden="Relu"):
    """``y = [r, r]`` with ``r = hidden(x @ w)``."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node(hidden, ["h"], ["r"]),
        helper.make_node("Concat", ["r", "r"], ["y"], axis=1),
    ]
    ends = {"inputs": [value("x", ["n", 64])], "outputs": [value("y", ["n", 64])]}
    return save(path, model(nodes, [tensor("w", values(64, 32))], opset=opset, ir=3, **ends))


def test_it_runs_as_before_with_a_note(tmp_path):
    path = old(tmp_path / "old.onnx")
    done = dkm.palettize_file(path, tmp_path / "small.onnx", 4)
    assert done.notes == ("opset 6 was lifted to 7 by onnx.version_converter",)
    assert not done.unchecked
    assert onnx.load(done.path).opset_import[0].version == 7
    assert dkm.validate(done, original=path, inputs=values(3, 64), require=("parity",))


def test_what_the_converter_changes_is_refused(tmp_path, monkeypatch):
    path = old(tmp_path / "old.onnx")
    right = version_converter.convert_version

    def wrong(proto, opset):
        lifted = right(proto, opset)
        lifted.graph.node[1].op_type = "Tanh"
        return lifted

    monkeypatch.setattr(version_converter, "convert_version", wrong)
    with pytest.raises(dkm.DkmError, match=r"old\.onnx: onnx\.version_converter changes .* 'y'"):
        dkm.palettize_file(path, tmp_path / "small.onnx", 4)


def test_what_it_cannot_convert_is_told_with_its_reason(tmp_path):
    path = old(tmp_path / "old.onnx", hidden="Twist")
    with pytest.raises(dkm.DkmError, match=r"opset is 6, .*_converter cannot convert it: .*Twist"):
        dkm.palettize_file(path, tmp_path / "small.onnx", 4)


def test_what_onnx_runtime_cannot_run_is_said_not_to_be_tried(tmp_path):
    """It has no sum of opset 6, which broadcasts by attributes; opset 7 says the same otherwise."""
    path = old(tmp_path / "old.onnx")
    proto = onnx.load(path)
    proto.graph.input[0].CopyFrom(value("x", [2, 64]))
    proto.graph.node[1].CopyFrom(helper.make_node("Add", ["h", "b"], ["r"], broadcast=1, axis=1))
    proto.graph.initializer.append(tensor("b", values(32)))
    onnx.save(proto, path)
    done = dkm.palettize_file(path, tmp_path / "small.onnx", 4)
    assert done.unchecked[0].startswith("ONNX Runtime cannot run the file, so its lifted opset")
    x = values(2, 64)
    (got,) = run(onnx.load(done.path), {"x": x}, LEVELS[0])
    half = x @ done.palettes["w"].decode() + values(32)
    np.testing.assert_allclose(got, np.concatenate([half, half], 1), rtol=1e-4, atol=1e-4)
