"""Files of transformers that ONNX Runtime's optimizer has fused, and weights of newer operators."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

import dkm_deploy as dkm
from tests.converters.onnx.models import any_shape, model, save, tensor, value, values
from tests.converters.onnx.rewriting.palettized import check

MICROSOFT = "com.microsoft"


def attention():
    """Three products in one: the weight is that of queries, keys and values."""
    node = helper.make_node("Attention", ["x", "w", "b"], ["y"], domain=MICROSOFT, num_heads=4)
    held = [tensor("w", values(32, 96)), tensor("b", values(96))]
    ends = {"inputs": [value("x", ["n", "t", 32])], "outputs": [value("y", ["n", "t", 32])]}
    made = model([node], held, domains=[MICROSOFT], **ends)
    return made, {"x": values(2, 5, 32)}, ["w"]


def embedding():
    """Words, places and segments, added and normalized."""
    names = ["ids", "segments", "words", "places", "parts", "gamma", "beta"]
    node = helper.make_node(
        "EmbedLayerNormalization", names, ["y", "mask"], domain=MICROSOFT, epsilon=1e-5
    )
    held = [
        tensor("words", values(99, 64)), tensor("places", values(40, 64)),
        tensor("parts", values(2, 64)), tensor("gamma", values(64)), tensor("beta", values(64)),
    ]  # fmt: skip
    ends = {
        "inputs": [value(name, ["n", 7], TensorProto.INT32) for name in names[:2]],
        "outputs": [value("y", ["n", 7, 64])],
    }
    made = model([node], held, domains=[MICROSOFT], **ends)
    ids = np.arange(14, dtype=np.int32).reshape(2, 7)
    return made, {"ids": ids, "segments": ids % 2}, ["words", "places", "parts"]


@pytest.mark.parametrize("made", [attention, embedding])
def test_weights_of_fused_operators(tmp_path, made):
    proto, feeds, weights = made()
    path = save(tmp_path / "dense.onnx", proto)
    result = dkm.palettize_file(path, tmp_path / "small.onnx", 4)
    assert list(result.palettes) == weights
    assert dkm.validate(result, original=path, inputs=feeds, require=("parity",))


def test_a_convolution_that_keeps_its_past(tmp_path):
    node = helper.make_node("CausalConvWithState", ["x", "w"], ["y", "state"])
    held = [tensor("w", values(256, 1, 4))]
    ends = {"inputs": [value("x", ["n", 256, "t"])], "outputs": [value("y", any_shape(3))]}
    proto = model([node], held, opset=27, **ends)
    result, _ = check(tmp_path, proto, {"x": values(1, 256, 6)}, tolerance=1e-5)
    assert list(result.palettes) == ["w"]
