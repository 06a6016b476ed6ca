"""From an ONNX file to an ONNX file: its weights become palettes, the rest stays the user's."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]  # no type hints
from onnx import ModelProto, TensorProto, helper

from converters.onnx.decoding.encode import encode
from converters.onnx.decoding.encoding import Encoding
from converters.onnx.decoding.insert import insert
from converters.onnx.graph.consumers import name_of
from converters.onnx.graph.editable import editable, write_back
from converters.onnx.graph.external_data import LARGEST, move_tensors_out, stored_bytes
from converters.onnx.graph.load import load
from converters.onnx.graph.old_ir import unlist
from converters.onnx.graph.tensors import (
    DEFAULT_DOMAINS,
    GraphValues,
    array_of,
    graph_values,
    graphs,
    op_name,
)
from converters.onnx.reading.find_decodes import find_decodes
from converters.onnx.reading.ledger import ledger
from converters.onnx.rewriting.checker import check_nodes, check_rewritten, first_names
from converters.onnx.rewriting.weights import find_weights
from dkm_deploy.assignment import Assignment
from dkm_deploy.clustering.kmeans_palette import cluster
from dkm_deploy.clustering.layout import group_count
from dkm_deploy.conversion.target import Rewrite
from dkm_deploy.errors import DkmError
from dkm_deploy.palette import Palette

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from dkm_deploy.palette_spec import PaletteSpec
    from dkm_deploy.recipe import Recipe

# Add and Mul that broadcast came with 7, on which ONNX Runtime's support begins too.
OLDEST_OPSET = 7
# Before it, every initializer had to be an input of the graph too.
_OLDEST_IR = 4
# Of the values that the decodings of several weights share.
_SHARED = "dkm:"


def palettize_model(path: Path, out: Path, recipe: Recipe) -> Rewrite:
    """Cluster the weights of the model at ``path`` by exact k-means and write it to ``out``.

    A weight (see :mod:`converters.onnx.rewriting.weights`) is replaced by the decoding of its
    palette under its own name, in the main graph, where that takes fewer bytes. Opset, names,
    shapes, metadata, functions and other nodes are kept; so is the IR version, unless it is below
    4. Tensors that the input keeps in other files are written into ``out``, or into one data file
    beside it if that would be larger than 2 GiB. The same file gives the same bytes.

    Raises:
        DkmError: the file is damaged or not ONNX, its opset or IR version is too old or too new,
            it is palettized already or for training, a name is taken, the recipe does not fit it,
            or nothing in it can be palettized.
    """
    model = load(path)
    notes = unlist(model)
    try:
        check_model(model)
        found = find_weights(model)
        assignment = _assign_specs(recipe, found.tensors)
        specs = assignment.specs
        opset = opset_of(model)
        planned = {
            name: encoding(name, found.tensors[name], spec, opset) for name, spec in specs.items()
        }
        small = too_small(found.tensors, planned)
        dense = {**found.dense, **assignment.dense, **small}
        smaller = [name for name in specs if name not in small]
        if not smaller:
            raise DkmError(f"there is nothing to palettize: {_first(dense)}")
        check_free({name: planned[name] for name in smaller}, graph_values(model))
        palettes = {
            name: cluster_tensor(name, found.tensors[name], specs[name]) for name in smaller
        }
    except DkmError as error:
        raise DkmError(f"{path}: {error}") from error
    before = ledger(path).total_bytes
    write_with(model, palettes, out)
    adjusted = {n: change for n, change in assignment.adjusted.items() if n in palettes}
    unchecked = tuple(check_rewritten(model, path, out))
    return Rewrite(palettes, dense, unchecked, before, adjusted, notes)


def write_with(model: ModelProto, palettes: Mapping[str, Palette], out: Path) -> None:
    """Put palettes in place of weights of a model, which is changed, and write it to ``out``."""
    take_out(model, set(palettes))
    graph, weights = editable(model.graph, palettes)
    insert(graph, weights, palettes, opset=opset_of(model))
    write_back(graph, model.graph)
    model.ir_version = max(model.ir_version, _OLDEST_IR)
    save_model(model, out)


def check_model(model: ModelProto) -> None:
    """Raise DkmError if the model is none that palettes can be put into."""
    opset = opset_of(model)
    newest = onnx.defs.onnx_opset_version()
    if opset < OLDEST_OPSET:
        raise DkmError(
            f"its opset is {opset or 'not given'}, and decoding palettes needs {OLDEST_OPSET} or "
            "newer; convert it with onnx.version_converter"
        )
    for what, version, known in (
        ("opset", opset, newest),
        ("IR", model.ir_version, onnx.IR_VERSION),
    ):
        if version > known:
            raise DkmError(
                f"its {what} version is {version}, and onnx {onnx.__version__} knows up to {known}"
            )
    check_nodes(model)
    if model.training_info:
        raise DkmError("it is a training graph; export the model for inference")
    palettized = [decode.weight for decode in find_decodes(model)]
    if palettized:
        raise DkmError(
            f"palettized already ({first_names(palettized)}); start from the dense model"
        )


def opset_of(model: ModelProto) -> int:
    """The opset of the standard operators; 0 if the model does not say."""
    return max((o.version for o in model.opset_import if o.domain in DEFAULT_DOMAINS), default=0)


def _assign_specs(recipe: Recipe, tensors: Mapping[str, TensorProto]) -> Assignment:
    """What the recipe says of each weight: its spec, or the reason to stay dense."""
    shapes = {name: torch.empty(*t.dims, device="meta") for name, t in tensors.items()}
    return recipe.assign(shapes) if shapes else Assignment({}, {}, {}, ())


def encoding(name: str, tensor: TensorProto, spec: PaletteSpec, opset: int) -> Encoding:
    """The decoding that a weight will get, of other values: good for its names and sizes."""
    return encode(name, stand_in(tensor, spec), opset=opset)


def stand_in(tensor: TensorProto, spec: PaletteSpec) -> Palette:
    """A palette as ``spec`` gives for a weight, but all zeros."""
    dims, groups = list(tensor.dims), [1] * len(tensor.dims)
    groups[spec.axis] = group_count(dims, spec)
    dims[spec.axis] //= spec.cluster_dim
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    lut = np.zeros((*groups, 1 << spec.bits, spec.cluster_dim), dtype)
    channels = (tensor.dims[0], *[1] * (len(dims) - 1))
    scale = np.ones(channels, dtype) if spec.per_channel_scale else None
    return Palette(np.zeros(dims, np.uint8), lut, spec.axis, scale=scale)


def too_small(
    tensors: Mapping[str, TensorProto], planned: Mapping[str, Encoding]
) -> dict[str, str]:
    """The weights that a palette does not make smaller, and the sizes.

    The largest comes first, and bears the bytes of what the decodings of others share with it.
    """
    dense: dict[str, str] = {}
    there: set[str] = set()
    for name in sorted(planned, key=lambda name: -stored_bytes(tensors[name])):
        sizes = _sizes(planned[name])
        size = sum(sizes[part] for part in sizes.keys() - there)
        dense_size = stored_bytes(tensors[name])
        if size < dense_size:
            there.update(sizes)
        else:
            elements = prod(tensors[name].dims)
            dense[name] = f"{elements} values: {dense_size} bytes now, {size} as a palette"
    return {name: dense[name] for name in planned if name in dense}


def cluster_tensor(name: str, tensor: TensorProto, spec: PaletteSpec) -> Palette:
    """The palette of a weight. Raises DkmError if its values cannot be read."""
    # A copy: torch must not see a read-only array.
    weight = torch.from_numpy(array_of(name, tensor).copy())
    try:
        return cluster(weight, spec)
    except DkmError as error:
        raise DkmError(f"{name}: {error}") from error


def _sizes(encoding: Encoding) -> dict[str, int]:
    """Bytes of each node, by the value that it makes, and of each tensor."""
    sizes = {
        name_of(node.outputs[0]): ir.serde.serialize_node(node).ByteSize()
        for node in encoding.nodes
    }
    for value in encoding.tensors:
        if value.const_value is not None:
            sizes[name_of(value)] = ir.serde.serialize_tensor(value.const_value).ByteSize()
    return sizes


def check_free(encodings: Mapping[str, Encoding], values: GraphValues) -> None:
    """Raise DkmError if the model uses a name that a decoding needs."""
    taken = values.definitions.keys() | values.uses.keys()
    for weight, encoding in encodings.items():
        if weight.startswith(_SHARED):
            raise DkmError(
                f"{weight}: names with {_SHARED} are reserved for the decoding; rename it"
            )
        made = {name_of(value) for value in encoding.tensors}
        made.update(name_of(node.outputs[0]) for node in encoding.nodes)
        for name in sorted(made - {weight}):
            if name in taken:
                raise DkmError(
                    f"{name}: decoding {weight} needs a value of this name, and the model has one; "
                    "rename either"
                )


def take_out(model: ModelProto, weights: set[str]) -> None:
    """Remove the tensors called ``weights``, wherever they are."""
    for graph, place in list(graphs(model.graph)):
        _remove(graph.initializer, lambda tensor: tensor.name in weights)
        _remove(
            graph.node, lambda node: op_name(node) == "Constant" and weights.issuperset(node.output)
        )
        if place:  # the value is no longer this graph's own
            _remove(graph.value_info, lambda value: value.name in weights)


def _remove(messages: Any, where: Callable[[Any], bool]) -> None:
    """Delete messages of a repeated field in place, which copies none of the others."""
    for place in reversed([i for i, message in enumerate(messages) if where(message)]):
        del messages[place]


def save_model(model: ModelProto, out: Path) -> None:
    """Write a model, its tensors in a file beside it where they are too many for one file.

    Raises:
        DkmError: the graph alone is larger than 2 GiB.
    """
    if sum(map(stored_bytes, model.graph.initializer)) > LARGEST:
        move_tensors_out(model.graph, out)
    try:
        out.write_bytes(model.SerializeToString(deterministic=True))
    except (EncodeError, ValueError) as error:
        raise DkmError(
            f"{out}: larger than 2 GiB, the most one ONNX file can hold; "
            "use fewer bits or palettize more of it"
        ) from error


def _first(dense: Mapping[str, str]) -> str:
    """The first reasons why weights stay dense."""
    if not dense:
        return "it has no tensor of rank 2 or more"
    return "; ".join(f"{name}: {reason}" for name, reason in list(dense.items())[:3])
