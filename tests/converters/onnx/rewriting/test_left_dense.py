"""What an ONNX file holds beside weights stays dense and is listed with the reason."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.converters.onnx.models import any_shape, constant, linear, model, tensor, value, values
from tests.converters.onnx.rewriting.palettized import X, check


def with_nan():
    array = values(64, 32, seed=5)
    array[3, 3] = np.nan
    return array


# What stands beside the weight w, which hidden = x @ w uses: nodes, tensors, and the reason.
LEFT_DENSE = {
    "NaN": (
        [helper.make_node("MatMul", ["x", "t"], ["u"])],
        [tensor("t", with_nan())],
        "it holds NaN or infinity",
    ),
    "a mask of infinities": (
        [helper.make_node("Add", ["hidden", "t"], ["u"])],
        [tensor("t", np.full((64, 32), -np.inf, np.float32))],
        "input 1 of Add",
    ),
    "computed": (
        [helper.make_node("Mul", ["t", "t"], ["m"]), helper.make_node("MatMul", ["x", "m"], ["u"])],
        [tensor("t", values(64, 32))],
        "input 0 of Mul",
    ),
    "two kinds of use": (
        [helper.make_node("MatMul", ["x", "t"], ["m"]), helper.make_node("Exp", ["t"], ["u"])],
        [tensor("t", values(64, 32))],
        "input 0 of Exp",
    ),
    "fixed prefix": (
        [
            helper.make_node("Concat", ["hidden", "t"], ["m"], axis=0),
            helper.make_node("MatMul", ["m", "t"], ["u"]),
        ],
        [tensor("t", values(32, 32))],
        "input 1 of Concat",
    ),
    "indices": (
        [helper.make_node("Gather", ["hidden", "t"], ["u"], axis=1)],
        [tensor("t", np.ones((4, 200), np.int64))],
        "int64: palettes are of floating numbers",
    ),
    "quantised": (
        [
            constant("scale", np.float32(0.1)),
            helper.make_node("DequantizeLinear", ["t", "scale"], ["m"]),
            helper.make_node("MatMul", ["x", "m"], ["u"]),
        ],
        [tensor("t", np.ones((64, 32), np.int8))],
        "int8, an input of DequantizeLinear: quantized already",
    ),
    "a codebook": (
        [
            constant("codes", np.ones((40, 10), np.int64)),
            helper.make_node("Gather", ["t", "codes"], ["u"]),
        ],
        [tensor("t", values(256, 8))],
        "a lookup table already",
    ),
    "too small": (
        [helper.make_node("MatMul", ["hidden", "t"], ["u"])],
        [tensor("t", values(32, 2))],
        "64 values: 268 bytes now, ",
    ),
    "an output": (
        [helper.make_node("Identity", ["t"], ["u"])],
        [tensor("t", values(64, 32))],
        "an output of the model",
    ),
    "only its shape": (
        [helper.make_node("Shape", ["t"], ["u"])],
        [tensor("t", values(64, 32))],
        "no operator uses its values",
    ),
    "no elements": (
        [helper.make_node("MatMul", ["x", "t"], ["u"])],
        [tensor("t", values(64, 0))],
        "it has no elements",
    ),
}


@pytest.mark.parametrize("case", LEFT_DENSE)
def test_what_is_no_weight_is_left_and_listed(tmp_path, case):
    more, tensors, reason = LEFT_DENSE[case]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["hidden"]), *more]
    rank = {"only its shape": 1, "indices": 3, "a codebook": 3}.get(case, 2)
    kind = TensorProto.INT64 if case == "only its shape" else TensorProto.FLOAT
    ends = {
        "inputs": [value("x", [64 if case == "a mask of infinities" else "n", 64])],
        "outputs": [value("hidden", any_shape(2)), value("u", any_shape(rank), kind)],
    }
    proto = model(nodes, [tensor("w", values(64, 32)), *tensors], **ends)
    feeds = {"x": values(64, 64) if case == "a mask of infinities" else X}
    result, small = check(tmp_path, proto, feeds, tolerance=1e-5)
    assert [*result.palettes] == ["w"]
    assert reason in result.dense["t"]
    assert tensors[0] in list(small.graph.initializer)


def test_a_default_that_a_caller_may_replace_is_left(tmp_path):
    proto = linear()
    proto.graph.node.append(helper.make_node("MatMul", ["x", "v"], ["z"]))
    proto.graph.initializer.append(tensor("v", values(64, 32)))
    proto.graph.input.append(value("v", [64, 32]))
    proto.graph.output.append(value("z", any_shape(2)))
    result, _ = check(tmp_path, proto, {"x": X})
    assert result.dense == {"v": "an input too, so that a caller may replace it"}
