"""Palettes in files of opset 7 to 10, which lack Range, Mod, GatherElements and Slice by inputs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import dkm_deploy as dkm
from tests.converters.onnx.models import model, tensor, value, values
from tests.converters.onnx.rewriting.palettized import check

LACKING = {7: {"Range", "GatherElements", "Mod"}, 10: {"Range", "GatherElements"}}
LAYOUTS = {
    "groups": {"group_size": 16},
    "rows": {"group_size": 1},
    "vectors": {"cluster_dim": 2},
}


@pytest.mark.parametrize(("opset", "bits"), [(7, 1), (7, 3), (10, 6), (7, 7)])
def test_every_table_is_made_without_newer_operators(tmp_path, opset, bits):
    """3 bits read 4096 and 7 bits 16384 numbers; at 1 bit the last byte is cut by a Slice."""
    nodes = [helper.make_node("MatMul", [a, b], [c]) for a, b, c in ("xwh", "hvy")]
    proto = model(
        nodes,
        [tensor("w", values(20, 51)), tensor("v", values(51, 33))],
        opset=opset,
        ir=4,
        inputs=[value("x", ["n", 20])],
        outputs=[value("y", ["n", 33])],
    )
    result, small = check(tmp_path, proto, {"x": values(2, 20)}, dkm.Recipe.uniform(bits), 1e-5)
    assert [*result.palettes] == ["w", "v"]
    assert not LACKING[opset] & {node.op_type for node in small.graph.node}
    assert small.opset_import == proto.opset_import


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout):
    nodes = [helper.make_node("Conv", ["x", "k"], ["y"], kernel_shape=[3, 3])]
    ends = {"inputs": [value("x", ["n", 16, 6, 6])], "outputs": [value("y", ["n", 96, 4, 4])]}
    proto = model(nodes, [tensor("k", values(96, 16, 3, 3))], opset=8, ir=4, **ends)
    recipe = dkm.Recipe.uniform(2, **LAYOUTS[layout])
    result, _ = check(tmp_path, proto, {"x": values(1, 16, 6, 6)}, recipe, 1e-5)
    assert result.palettes["k"].bits == 2


def test_an_embedding_is_read_by_rows(tmp_path):
    ids = value("ids", ["n"], TensorProto.INT64)
    nodes = [helper.make_node("Gather", ["table", "ids"], ["y"])]
    ends = {"inputs": [ids], "outputs": [value("y", ["n", 48])]}
    proto = model(nodes, [tensor("table", values(300, 48))], opset=9, ir=4, **ends)
    source, out = tmp_path / "m.onnx", tmp_path / "small.onnx"
    onnx.save(proto, source)
    result = dkm.palettize_file(source, out, 3)
    assert dkm.read_palettes(out) == dict(result.palettes)
    rows = {"ids": np.arange(0, 300, 7)}
    assert dkm.validate(out, original=source, inputs=rows, require=("parity",))
    small = onnx.load(out)
    assert not LACKING[7] & {node.op_type for node in small.graph.node}
    assert "table" not in {name for node in small.graph.node for name in node.output}


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_float_types(tmp_path, dtype):
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    ends = {"inputs": [value("x", ["n", 64], kind)], "outputs": [value("y", ["n", 32], kind)]}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    proto = model(nodes, [tensor("w", values(64, 32, dtype=dtype))], opset=7, ir=4, **ends)
    check(tmp_path, proto, {"x": values(3, 64, dtype=dtype)}, tolerance=1e-3)
