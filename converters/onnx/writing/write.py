"""Write an exported program as an ONNX file with n-bit palettes, and a data file if it is large."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]  # no type hints
from onnx import helper
from onnx_ir.passes import common as passes

from converters.onnx.decoding.insert import insert
from converters.onnx.graph.external_data import LARGEST, move_weights_out, total_bytes
from converters.onnx.graph.interface import write_interface
from converters.onnx.options import Options
from converters.onnx.writing.compact import drop_default_attributes, shorten_names
from converters.onnx.writing.float16_storage import cast_weights, narrow_luts, narrow_weights
from converters.onnx.writing.trace import DOMAIN, trace
from dkm_deploy._version import __version__
from dkm_deploy.errors import DkmError
from dkm_deploy.runtimes import runtime_for

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from dkm_deploy.conversion.exported import ExportedModel
    from dkm_deploy.palette import Palette


def write(exported: ExportedModel, path: Path, options: Options) -> tuple[str, ...]:
    """Write ``exported`` to ``path``; the same program gives the same bytes.

    Args:
        exported: the program and its palettes.
        path: the file to write. Its data goes to a file of this name and ``.data`` beside it.
        options: what is asked of the file.

    Returns:
        A line for every tensor that stays float32 against ``storage_dtype``, with the reason.

    Raises:
        DkmError: the model has no valid ONNX form, or one that the options ask for.
    """
    model = trace(exported, options.opset_for({p.bits for p in exported.palettes.values()}))
    weights = _take_out(model, exported.palettes)
    _tidy(model)
    half = options.storage_dtype == "float16"
    narrowed, notes = narrow_weights(model.graph) if half else ([], [])
    palettes = {name: exported.palettes[name] for name in weights}
    insert(model.graph, weights, palettes, options.decode, options.narrow, folds=options.folds)
    if half:
        cast_weights(model.graph, narrowed)
        # A kernel's LUT lies on a grid that float16 would leave.
        luts = [] if options.decode == "int8" else [f"{weight}.lut" for weight in weights]
        notes += narrow_luts(model.graph, luts)
    drop_default_attributes(model)
    if options.names == "short":
        shorten_names(model, weights, narrowed)
    external = options.external_data
    if external is None:
        external = total_bytes(model.graph) > LARGEST
    if external:
        move_weights_out(model, path)
    _save(_serialized(model), path)
    _check_float64(exported, path)
    return tuple(notes)


def _check_float64(exported: ExportedModel, path: Path) -> None:
    """Raise DkmError for a file of float64 that ONNX Runtime has no kernels for."""
    if any(tensor.dtype is torch.float64 for tensor in exported.program.state_dict.values()):
        try:
            runtime_for(path).load(path)
        except DkmError as error:
            raise DkmError(
                f"{error}; the model is float64: call .float() on it before palettizing, and on "
                "its inputs"
            ) from error


def _serialized(model: ir.Model) -> onnx.ModelProto:
    proto = ir.to_proto(model)
    del proto.graph.value_info[:]  # every reader infers them again
    proto.ir_version = helper.find_min_ir_version_for(list(proto.opset_import), True)
    proto.producer_name, proto.producer_version = "dkm-deploy", __version__
    return proto


def _save(proto: onnx.ModelProto, path: Path) -> None:
    try:
        write_interface(proto)
        path.write_bytes(proto.SerializeToString(deterministic=True))
        # By its path, for the checker copies a model that it is given.
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())
        raise DkmError(f"{path}: the model has no valid ONNX form: {reason}") from error
    except (EncodeError, ValueError) as error:
        raise DkmError(
            f"{path}: larger than 2 GiB, the most an ONNX file can hold; its weights need a file "
            "of their own (external_data=True)"
        ) from error


def _tidy(model: ir.Model) -> None:
    """Remove what nothing uses, and the exporter's notes, which outweigh the graph."""
    passes.RemoveUnusedNodesPass()(model)
    passes.RemoveUnusedOpsetsPass()(model)
    passes.ClearMetadataAndDocStringPass()(model)
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.metadata_props.clear()


def _take_out(model: ir.Model, palettes: Mapping[str, Palette]) -> dict[str, ir.Value]:
    """Remove the ``LutToDense`` nodes and the Mul nodes that multiply what they give with a scale.

    Returns:
        The values that are left to be used by name of the weight; nothing gives them.
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
                    identity = _rename_node(value, dense)
                    graph.insert_before(node, identity)
                    seen = identity.outputs[0]
                ir.convenience.replace_all_uses_with(dense, seen, replace_graph_outputs=True)
            graph.remove({node, *ends}, safe=True)
    return values


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
        raise RuntimeError(
            f"{weight}: {what} reads it before its scale is applied; please report this"
        )
    return users


def _multiplies(node: ir.Node, scale: NDArray[Any]) -> bool:
    """Whether a node is a Mul by the constant ``scale``."""
    constants = [value.const_value for value in node.inputs if value is not None]
    return node.op_type == "Mul" and any(
        np.array_equal(constant.numpy().astype(scale.dtype), scale)
        for constant in constants
        if constant is not None
    )


def _rename_node(value: ir.Value, like: ir.Value) -> ir.Node:
    """A node that gives ``value`` under the name, type and shape of ``like``."""
    output = ir.Value(name=like.name, type=like.type, shape=like.shape)
    return ir.Node("", "Identity", [value], outputs=[output])
