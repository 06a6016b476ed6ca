"""Small ONNX models that tests of the file-to-file way share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from converters.onnx.decoding.encoding import Encoding, merge
from dkm_deploy.runtimes.onnx_runtime.runtime import quiet_options

LEVELS = (
    onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
)


def values(*shape: int, dtype: type = np.float32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def tensor(name: str, array: np.ndarray) -> TensorProto:
    return numpy_helper.from_array(array, name)


def value(name: str, shape=None, kind: int = TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def constant(name: str, array: np.ndarray):
    return helper.make_node("Constant", [], [name], value=tensor(f"{name}_value", array))


def any_shape(rank: int) -> list[str]:
    return [f"d{dim}" for dim in range(rank)]


def graph(nodes, tensors=(), inputs=("x",), outputs=("y",), name="g") -> GraphProto:
    return helper.make_graph(
        nodes, name, [_info(i) for i in inputs], [_info(o) for o in outputs], initializer=tensors
    )


def model(nodes, tensors=(), *, opset=17, ir=None, domains=(), functions=(), **parts) -> ModelProto:
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    known = [one for one in imports if not one.domain]
    ir = ir or max(helper.find_min_ir_version_for(known), 8 if functions else 0)
    made = graph(nodes, tensors, **parts)
    return helper.make_model(made, opset_imports=imports, ir_version=ir, functions=functions)


def linear(opset=17, dtype=np.float32, **options) -> ModelProto:
    """``y = x @ w``, ``w`` of shape (64, 32)."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return model(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        [tensor("w", values(64, 32, dtype=dtype))],
        opset=opset,
        inputs=[value("x", ["batch", 64], kind)],
        outputs=[value("y", ["batch", 32], kind)],
        **options,
    )


def messages(*encodings: Encoding) -> tuple[list[NodeProto], list[TensorProto]]:
    """The nodes and the initializers of all encodings, what they share once."""
    whole = merge(encodings)
    tensors = [ir.to_proto(value.const_value) for value in whole.tensors]
    return [ir.to_proto(node) for node in whole.nodes], tensors


def save(path: Path, proto: ModelProto) -> Path:
    onnx.save(proto, path)
    return path


def run(proto: ModelProto, feeds, level) -> list[np.ndarray]:
    options = quiet_options()
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)


def dense_twin(proto: ModelProto, palettes) -> ModelProto:
    """``proto`` with the decoded weights in place of its own, wherever they are."""
    twin = ModelProto()
    twin.CopyFrom(proto)
    waiting = [twin.graph]
    while waiting:
        part = waiting.pop()
        for held in part.initializer:
            if held.name in palettes:
                held.CopyFrom(tensor(held.name, palettes[held.name].decode()))
        for node in part.node:
            waiting += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
            if node.op_type == "Constant" and node.output[0] in palettes:
                array = palettes[node.output[0]].decode()
                node.attribute[0].t.CopyFrom(tensor("", array))
    return twin


def _info(named):
    return value(named, ["rows", "columns"]) if isinstance(named, str) else named
