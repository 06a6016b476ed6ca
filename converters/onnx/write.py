"""Write an exported program as one ONNX file with n-bit palettes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]  # no type hints
from onnx import helper
from onnx_ir.passes import common as passes

from converters.onnx.insert import Decode, insert
from converters.onnx.trace import DOMAIN, trace
from dkm_deploy._version import __version__
from dkm_deploy.errors import DkmError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from dkm_deploy.export import Exported
    from dkm_deploy.palette import Palette

OLDEST_OPSET = 18


def write(
    exported: Exported, path: Path, *, opset: int = OLDEST_OPSET, decode: Decode = "load"
) -> None:
    """Write ``exported`` to ``path``; the same program gives the same bytes.

    Args:
        exported: the program and its palettes.
        path: the file to write.
        opset: version of the ONNX operators; the IR version is the lowest that goes with it.
        decode: when runtimes decode the palettes; see :func:`converters.onnx.insert.insert`.

    Raises:
        DkmError: the opset is out of range, or the model has no valid ONNX form.
    """
    newest = onnx.defs.onnx_opset_version()
    if not isinstance(opset, int) or not OLDEST_OPSET <= opset <= newest:
        raise DkmError(f"opset is {opset}; it must be {OLDEST_OPSET} to {newest}")
    model = with_palettes(trace(exported, opset), exported.palettes, decode)
    try:
        onnx.checker.check_model(model, full_check=True)
        path.write_bytes(model.SerializeToString(deterministic=True))
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())
        raise DkmError(f"{path}: the model has no valid ONNX form: {reason}") from error
    except (EncodeError, ValueError) as error:
        raise DkmError(f"{path}: larger than 2 GiB, the most an ONNX file can hold") from error


def with_palettes(
    model: ir.Model, palettes: Mapping[str, Palette], decode: Decode = "load"
) -> onnx.ModelProto:
    """The model with each ``LutToDense`` node replaced by the decoding of its palette."""
    weights = _take_out(model, palettes)
    _tidy(model)
    proto = ir.to_proto(model)
    insert(proto, {weight: palettes[weight] for weight in weights}, decode)
    del proto.graph.value_info[:]  # every reader infers them again
    proto.ir_version = helper.find_min_ir_version_for(list(proto.opset_import), True)
    proto.producer_name, proto.producer_version = "dkm-deploy", __version__
    return proto


def _tidy(model: ir.Model) -> None:
    """Remove what nothing uses, and the exporter's notes, which outweigh the graph."""
    passes.RemoveUnusedNodesPass()(model)
    passes.RemoveUnusedOpsetsPass()(model)
    passes.ClearMetadataAndDocStringPass()(model)
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.metadata_props.clear()


def _take_out(model: ir.Model, palettes: Mapping[str, Palette]) -> list[str]:
    """Remove the ``LutToDense`` nodes and the Mul nodes that multiply what they give with a scale.

    Values named after the weights are left.

    Returns:
        Those names.
    """
    values: dict[str, ir.Value] = {}
    for graph in (model.graph, *model.graph.subgraphs()):
        for node in [node for node in graph if node.domain == DOMAIN]:
            weight = node.attributes["weight"].as_string()
            value = values.setdefault(weight, ir.Value(name=weight))
            ends = _scalings(node, weight, palettes[weight].scale)
            for end in ends:
                dense, seen = end.outputs[0], value
                if dense.is_graph_output():  # an output keeps its own name
                    identity = _renaming(value, dense)
                    graph.insert_before(node, identity)
                    seen = identity.outputs[0]
                ir.convenience.replace_all_uses_with(dense, seen, replace_graph_outputs=True)
            graph.remove({node, *ends}, safe=True)
    return list(values)


def _scalings(decode: ir.Node, weight: str, scale: NDArray[Any] | None) -> list[ir.Node]:
    """The nodes that end the decoding of a weight: the Mul nodes behind it, if it has a scale.

    Raises:
        RuntimeError: something else uses the weight; the exporter's optimiser has moved the Mul.
    """
    if scale is None:
        return [decode]
    users = [use.node for use in decode.outputs[0].uses()]
    others = [user.op_type for user in users if not _multiplies(user, scale)]
    if others or decode.outputs[0].is_graph_output():
        what = others[0] if others else "an output"
        raise RuntimeError(f"{weight}: {what} uses it before its scale is applied; please report")
    return users


def _multiplies(node: ir.Node, scale: NDArray[Any]) -> bool:
    """Whether a node is a Mul by the constant ``scale``."""
    constants = [value.const_value for value in node.inputs if value is not None]
    return node.op_type == "Mul" and any(
        np.array_equal(constant.numpy().astype(scale.dtype), scale)
        for constant in constants
        if constant is not None
    )


def _renaming(value: ir.Value, like: ir.Value) -> ir.Node:
    """A node that gives ``value`` under the name, type and shape of ``like``."""
    output = ir.Value(name=like.name, type=like.type, shape=like.shape)
    return ir.Node("", "Identity", [value], outputs=[output])
