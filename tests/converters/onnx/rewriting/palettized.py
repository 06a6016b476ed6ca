"""Palettizes ONNX models and compares every output with the dense twin's."""

import numpy as np
import onnx
from onnx import helper

import dkm_deploy as dkm
from tests.converters.onnx.models import LEVELS, dense_twin, run, save, value, values

FOUR = dkm.Recipe.uniform(4)
X = values(3, 64, seed=9)


def palettized(tmp_path, proto, recipe=FOUR):
    """The result record and the model in the written file."""
    source = save(tmp_path / "model.onnx", proto)
    result = dkm.palettize_file(source, tmp_path / "small.onnx", recipe, force=True)
    assert result.bytes_before == source.stat().st_size
    assert result.bytes_after == (tmp_path / "small.onnx").stat().st_size
    return result, onnx.load(tmp_path / "small.onnx")


def check(tmp_path, proto, feeds, recipe=FOUR, tolerance=1e-6):
    """Palettize ``proto``; weights bit for bit, and outputs, in ONNX Runtime as in the twin."""
    result, small = palettized(tmp_path, proto, recipe)
    assert result.unchecked == ()
    assert dkm.read_palettes(result.path) == dict(result.palettes)
    assert dkm.size_breakdown(result.path).total_bytes == result.bytes_after
    shown = onnx.ModelProto()
    shown.CopyFrom(small)
    for name, palette in result.palettes.items():
        kind = helper.np_dtype_to_tensor_dtype(palette.lut.dtype)
        shown.graph.output.append(value(name, palette.shape, kind))
    twin = dense_twin(proto, result.palettes)
    for level in LEVELS:
        outputs = run(shown, feeds, level)
        expected = run(twin, feeds, level)
        for got, wanted in zip(outputs, expected, strict=False):
            np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)
            assert got.dtype == wanted.dtype
        weights = outputs[len(expected) :]
        for got, palette in zip(weights, result.palettes.values(), strict=True):
            assert got.tobytes() == palette.decode().tobytes()
    return result, small
