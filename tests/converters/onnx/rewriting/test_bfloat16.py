"""ONNX files with weights of bfloat16, most of which ONNX Runtime cannot run on the CPU."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import dkm_deploy as dkm
from converters.onnx.rewriting.plan_subject import OnnxSubject
from tests.converters.onnx.models import LEVELS, model, run, save, value, values

B = TensorProto.BFLOAT16
BFLOAT16 = ml_dtypes.bfloat16


def weight(name, *shape):
    return numpy_helper.from_array(values(*shape).astype(BFLOAT16), name)


def cast_to_float(tmp_path, *shape, transposed=False):
    """A product in float32 of a weight that is stored as bfloat16, which runs everywhere."""
    nodes = [helper.make_node("Cast", ["w"], ["wide"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("Transpose", ["wide"], ["turned"])] * transposed
    nodes.append(helper.make_node("MatMul", ["x", "turned" if transposed else "wide"], ["y"]))
    columns, rows = shape if transposed else shape[::-1]
    ends = {"inputs": [value("x", ["n", rows])], "outputs": [value("y", ["n", columns])]}
    return save(tmp_path / "cast.onnx", model(nodes, [weight("w", *shape)], **ends))


def pure(tmp_path):
    """A model of bfloat16 from end to end, with an embedding of which rows are read."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("MatMul", ["rows", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["y"]),
    ]
    tensors = [weight("table", 64, 48), weight("w", 48, 32), weight("b", 32)]
    ids = [value("ids", ["n"], TensorProto.INT64)]
    proto = model(nodes, tensors, inputs=ids, outputs=[value("y", ["n", 32], B)])
    return save(tmp_path / "pure.onnx", proto)


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_the_decoded_weights_are_those_of_the_palettes_in_bfloat16(tmp_path, bits):
    path = cast_to_float(tmp_path, 100, 64, transposed=bits == 4)
    done = dkm.palettize_file(path, tmp_path / "small.onnx", bits)
    assert dkm.read_palettes(done) == dict(done.palettes)
    decoded = done.palettes["w"].decode()
    assert (decoded == decoded.astype(BFLOAT16).astype(np.float32)).all()
    small = onnx.load(done.path)
    lut = next(t for t in small.graph.initializer if t.name == "w.lut")
    assert (lut.data_type, len(lut.raw_data)) == (B, 2 * 2**bits)
    x = values(2, 64 if bits == 4 else 100)
    wanted = x @ (decoded.T if bits == 4 else decoded)
    for level in LEVELS:
        np.testing.assert_allclose(run(small, {"x": x}, level)[0], wanted, rtol=1e-4, atol=1e-4)


def test_a_model_that_onnx_runtime_cannot_run_is_palettized_and_compared_in_float32(tmp_path):
    path = pure(tmp_path)
    with pytest.raises(Exception, match="NOT_IMPLEMENTED"):
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    done = dkm.palettize_file(path, tmp_path / "small.onnx", 4)
    assert list(done.palettes) == ["table", "w"]
    assert not done.unchecked
    report = dkm.validate(done, original=path, inputs={"ids": np.arange(9)}, require=("parity",))
    assert report, report.failed
    (row,) = report.files
    ideal = sum(p.size // 2 + 2 * p.lut.size for p in done.palettes.values())
    assert row.bytes_by_kind["indices"] + row.bytes_by_kind["lut"] == ideal


def test_a_wrong_palette_of_such_a_model_fails(tmp_path):
    path = pure(tmp_path)
    done = dkm.palettize_file(path, tmp_path / "small.onnx", 4)
    small = onnx.load(done.path)
    bias = next(t for t in small.graph.initializer if t.name == "b")
    bias.CopyFrom(weight("b", 33))
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias)[1:].copy(), "b"))
    onnx.save(small, done.path)
    assert not dkm.validate(done, original=path, inputs={"ids": np.arange(9)})


def test_a_plan_of_bfloat16_weights(tmp_path):
    subject = OnnxSubject(pure(tmp_path), [({"ids": np.arange(9)}, None)], None)
    assert set(subject.shapes) == {"table", "w"}
    coarse, fine = (dict(subject.losses(dkm.PaletteSpec(bits), ["w"])) for bits in (2, 6))
    assert 0 < fine["w"] < coarse["w"]


def test_a_scale_that_bfloat16_would_round_is_refused_by_the_name_of_the_weight(tmp_path):
    recipe = dkm.Recipe.uniform(4, per_channel_scale=True)
    with pytest.raises(dkm.DkmError, match=r"w: bfloat16 would round .* per_channel_scale"):
        dkm.palettize_file(cast_to_float(tmp_path, 64, 64), tmp_path / "small.onnx", recipe)


def test_a_table_with_too_few_values_for_its_bytes_stays_dense(tmp_path):
    path = cast_to_float(tmp_path, 16, 16)
    with pytest.raises(dkm.DkmError, match="w: 256 values: "):
        dkm.palettize_file(path, tmp_path / "small.onnx", 8)
