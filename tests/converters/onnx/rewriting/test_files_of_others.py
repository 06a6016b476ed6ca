"""Files that other tools have sharded, shared or quantised: the rest is palettized, theirs kept."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.external_data_helper import set_external_data

import dkm_deploy as dkm
from tests.converters.onnx.models import any_shape, constant, model, save, tensor, value, values
from tests.converters.onnx.rewriting.palettized import X, check


def product(weight="w"):
    return helper.make_node("MatMul", ["x", weight], ["h"])


def test_weights_in_several_data_files(tmp_path):
    nodes = [product("v"), helper.make_node("MatMul", ["h", "w"], ["y"])]
    tensors = [tensor("v", values(64, 48)), tensor("w", values(48, 32))]
    proto = model(nodes, tensors)
    for place, held in enumerate(proto.graph.initializer):
        data = held.raw_data
        (tmp_path / f"shard_{place}.bin").write_bytes(b"head" + data)
        set_external_data(held, f"shard_{place}.bin", offset=4, length=len(data))
        held.ClearField("raw_data")
    path = save(tmp_path / "model.onnx", proto)
    done = dkm.palettize_file(path, tmp_path / "small.onnx", 4)
    assert list(done.palettes) == ["v", "w"]
    assert done.bytes_before == sum(file.stat().st_size for file in tmp_path.glob("[!s]*.onnx")) + (
        8 + 4 * (64 * 48 + 48 * 32)
    )
    assert dkm.validate(done, original=path, inputs={"x": X}, require=("parity",))


def quantised(shape, low=-127):
    return np.random.default_rng(0).integers(low, 127, shape).astype(np.int8 if low else np.uint8)


def qlinear_conv():
    """A convolution of integers behind a product of numbers."""
    scale = [constant(name, np.float32(0.05)) for name in ("xs", "ks", "ys")]
    zero = [constant(name, np.uint8(128)) for name in ("xz", "yz")] + [constant("kz", np.int8(0))]
    nodes = [
        *scale, *zero, constant("square", np.array([-1, 4, 4, 2], np.int64)), product(),
        helper.make_node("Reshape", ["h", "square"], ["image"]),
        helper.make_node("QuantizeLinear", ["image", "xs", "xz"], ["q"]),
        helper.make_node("QLinearConv", ["q", "xs", "xz", "k", "ks", "kz", "ys", "yz"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "ys", "yz"], ["y"]),
    ]  # fmt: skip
    return nodes, [tensor("k", quantised((8, 4, 1, 1)))], {"k": "int8, an input of QLinearConv"}


def qdq():
    """Weights that are stored dense and rounded to 8 bits in every run, as while training."""
    nodes = [
        constant("s", np.float32(0.05)), constant("z", np.int8(0)), product(),
        helper.make_node("QuantizeLinear", ["d", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["e"]),
        helper.make_node("MatMul", ["h", "e"], ["y"]),
    ]  # fmt: skip
    return nodes, [tensor("d", values(32, 32))], {"d": "input 0 of QuantizeLinear"}


def matmul_nbits():
    """ONNX Runtime's 4-bit product: 64 columns of 32 values, a block each."""
    nodes = [
        product(),
        helper.make_node(
            "MatMulNBits", ["h", "b", "s"], ["y"], domain="com.microsoft",
            K=32, N=64, bits=4, block_size=32,
        ),
    ]  # fmt: skip
    held = [tensor("b", quantised((64, 1, 16), 0)), tensor("s", np.full(64, 0.1, np.float32))]
    return nodes, held, {"b": "uint8, an input of com.microsoft::MatMulNBits: quantized already"}


def dynamic():
    """Weights of 8 bits, and what they are multiplied with rounded in every run."""
    nodes = [
        product(),
        helper.make_node("DynamicQuantizeLinear", ["h"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "b", "z"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "s"], ["y"]),
    ]
    return nodes, [tensor("b", quantised((32, 16)))], {"b": "int8, an input of MatMulInteger"}


@pytest.mark.parametrize("made", [qlinear_conv, qdq, matmul_nbits, dynamic])
def test_what_others_have_quantised_is_kept_and_listed(tmp_path, made):
    nodes, theirs, reasons = made()
    ends = {"inputs": [value("x", ["n", 64])], "outputs": [value("y", any_shape(2))]}
    if made is qlinear_conv:
        ends["outputs"] = [value("y", any_shape(4))]
    domains = ["com.microsoft"] if made is matmul_nbits else []
    tensors = [tensor("w", values(64, 32)), *theirs]
    proto = model(nodes, tensors, domains=domains, **ends)
    path = save(tmp_path / "dense.onnx", proto)
    done = dkm.palettize_file(path, tmp_path / "out.onnx", 4)
    assert list(done.palettes) == ["w"]
    assert {name: done.dense[name].startswith(reason) for name, reason in reasons.items()} == (
        dict.fromkeys(reasons, True)
    )
    kept = {held.name: held for held in onnx.load(done.path).graph.initializer}
    assert all(kept[held.name] == held for held in theirs)
    assert dkm.validate(done, original=path, inputs={"x": X}, require=("parity",))


def test_one_table_that_several_values_share_is_stored_once(tmp_path):
    """As exporters write tied weights: an initializer, and Identities with the other names."""
    nodes = [
        helper.make_node("Identity", ["w"], ["tied"]),
        helper.make_node("Identity", ["w"], ["again"]),
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("MatMul", ["h", "tied"], ["i"]),
        helper.make_node("Gemm", ["i", "again"], ["y"], transB=1),
    ]
    proto = model(nodes, [tensor("w", 0.1 * values(64, 64))])
    result, small = check(tmp_path, proto, {"x": X}, tolerance=1e-5)
    assert list(result.palettes) == ["w"]
    indices = [t for t in small.graph.initializer if t.data_type == TensorProto.UINT8]
    assert sum(len(held.raw_data) for held in indices) == 64 * 64 // 2
