"""Which tensors become float16, and why others do not."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters.onnx.writing.float16_storage import cast_weights, narrow_luts, narrow_weights

RANDOM = np.random.default_rng(0)


def graph(values: np.ndarray, *uses: tuple[str, int]) -> ir.Graph:
    """One initializer ``w``, taken by operators as the inputs in ``uses``."""
    nodes = [
        helper.make_node(op, [*[f"x{i}" for i in range(place)], "w"], [f"y{number}"])
        for number, (op, place) in enumerate(uses)
    ]
    tensor = numpy_helper.from_array(values.astype(np.float32), "w")
    return ir.from_proto(helper.make_graph(nodes, "g", [], [], initializer=[tensor]))


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape) * 0.05


def with_one(values: np.ndarray, one: float) -> np.ndarray:
    values.reshape(-1)[7] = one
    return values


STORED = {
    "a weight": (normal(64, 64), ("MatMul", 1)),
    "a bias with a value near zero": (with_one(normal(128), 1e-7), ("Add", 1)),
    "a table with values near zero": (with_one(normal(100, 8), 1e-9), ("Gather", 0)),
    "scales": (1 + normal(128), ("BatchNormalization", 1)),
    "variances": (np.abs(1 + normal(128)), ("BatchNormalization", 4)),
    "positions": (np.arange(1025.0), ("Add", 1)),
    "zeros": (np.zeros((8, 16)), ("Conv", 1)),
}


@pytest.mark.parametrize("what", STORED)
def test_what_survives_is_stored_in_half(what):
    values, use = STORED[what]
    made = graph(values, use)
    assert narrow_weights(made) == (["w"], [])
    stored = made.initializers["w"].const_value
    assert stored.tobytes() == values.astype(np.float32).astype(np.float16).tobytes()
    assert stored.dtype == ir.DataType.FLOAT16
    assert stored.nbytes == values.size * 2


KEPT = {
    "a value that overflows": (with_one(normal(64, 64), 1e5), ("MatMul", 1), "1e+05 is larger"),
    "infinity": (with_one(normal(64, 64), np.inf), ("MatMul", 1), "holds NaN or infinity"),
    "NaN": (with_one(normal(64, 64), np.nan), ("MatMul", 1), "holds NaN or infinity"),
    "small values throughout": (normal(64, 64) * 1e-6, ("MatMul", 1), "is too small for float16"),
    "a small variance": (
        with_one(np.abs(1 + normal(128)), 1e-9),
        ("BatchNormalization", 4),
        "1e-09 is too small",
    ),
    "a small scale": (with_one(1 + normal(128), 1e-6), ("LayerNormalization", 1), "too small"),
    "long positions": (np.arange(4096.0), ("Add", 1), "its whole numbers need more than 11 bits"),
    "factors": (normal(128), ("Mul", 1), "Mul may need its precision"),
    "frequencies": (normal(1, 128, 1), ("MatMul", 0), "MatMul may need its precision"),
    "initial states": (normal(1, 2, 64), ("LSTM", 5), "LSTM may need its precision"),
}


@pytest.mark.parametrize("what", KEPT)
def test_what_does_not_survive_stays_and_is_told(what):
    values, use, reason = KEPT[what]
    made = graph(values, use)
    changed, notes = narrow_weights(made)
    assert changed == []
    assert len(notes) == 1
    assert notes[0].startswith("w stays float32: ")
    assert reason in notes[0]
    assert made.initializers["w"].const_value.dtype == ir.DataType.FLOAT


def test_every_user_is_asked_and_moves_are_followed():
    values = normal(64, 64)
    assert narrow_weights(graph(values, ("MatMul", 1), ("Sin", 0)))[0] == []
    for op, stored in (("MatMul", ["w"]), ("Sin", [])):
        made = graph(values, ("Transpose", 0))
        made.append(ir.Node("", op, [made.node(0).outputs[0]]))
        assert narrow_weights(made)[0] == stored


def test_small_tensors_and_other_types_are_left_alone():
    assert narrow_weights(graph(normal(4, 8), ("MatMul", 1))) == ([], [])
    made = graph(np.zeros(100), ("Add", 1))
    made.initializers["w"].const_value = ir.tensor(np.zeros(100, np.int64))
    assert narrow_weights(made) == ([], [])


def steps(graph: ir.Graph) -> list[tuple[str, str, str]]:
    """Operator, input and output of every node."""
    return [(node.op_type, node.inputs[0].name, node.outputs[0].name) for node in graph]


def test_a_weight_in_use_keeps_its_name():
    made = graph(normal(4), ("Relu", 0), ("Sin", 0))
    cast_weights(made, ["w"])
    assert list(made.initializers) == ["w.float16"]
    assert steps(made) == [("Cast", "w.float16", "w"), ("Relu", "w", "y0"), ("Sin", "w", "y1")]
    assert made[0].attributes["to"].value == TensorProto.FLOAT


def test_a_stored_lut_keeps_its_name():
    luts = {"a.lut": normal(1, 1, 128, 1), "b.lut": normal(1, 16, 1), "c.lut": normal(1, 128, 1)}
    luts["c.lut"][0, 3] = 1e6
    tensors = [numpy_helper.from_array(v.astype(np.float32), name) for name, v in luts.items()]
    uses = [helper.make_node("Relu", [name], [f"{name}:0"]) for name in luts]
    made = ir.from_proto(helper.make_graph(uses, "g", [], [], initializer=tensors))
    assert narrow_luts(made, luts) == ["c.lut stays float32: 1e+06 is larger than float16 holds"]
    kinds = {name: value.const_value.dtype for name, value in made.initializers.items()}
    assert kinds == dict.fromkeys(luts, TensorProto.FLOAT) | {"a.lut": TensorProto.FLOAT16}
    assert steps(made)[:2] == [
        ("Cast", "a.lut", "a.lut.float32"),
        ("Relu", "a.lut.float32", "a.lut:0"),
    ]


def test_casts_stand_in_the_order_of_what_they_cast():
    tensors = [numpy_helper.from_array(np.zeros(4, np.float32), name) for name in ("a", "b")]
    add = helper.make_node("Add", ["a", "b"], ["y"])
    made = ir.from_proto(helper.make_graph([add], "g", [], [], initializer=tensors))
    cast_weights(made, ["a", "b"])
    assert steps(made)[:2] == [("Cast", "a.float16", "a"), ("Cast", "b.float16", "b")]
