"""From an ONNX file to an ONNX file: its weights become palettes, the rest stays the user's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]  # no type hints
from onnx import ModelProto

from converters.file_weights import assign_to_shapes, first_reasons
from converters.onnx.decoding.bfloat16 import narrow_lut
from converters.onnx.decoding.encoding import Encoding
from converters.onnx.decoding.insert import insert
from converters.onnx.graph.consumers import name_of
from converters.onnx.graph.editable import editable, write_back
from converters.onnx.graph.external_data import LARGEST, move_tensors_out, stored_bytes
from converters.onnx.graph.tensors import (
    GraphValues,
    default_opset,
    graph_values,
    graphs,
    op_name,
)
from converters.onnx.reading.find_decodes import find_decodes
from converters.onnx.reading.ledger import ledger
from converters.onnx.rewriting.checker import check_nodes, check_rewritten
from converters.onnx.rewriting.lift_opset import OLDEST_OPSET, check_lifted
from converters.onnx.rewriting.source import load_source
from converters.onnx.rewriting.tensor_palettes import (
    cluster_tensor,
    encoding_of,
    is_bfloat16,
    too_small,
)
from converters.onnx.rewriting.weights import find_weights
from converters.storage import names_in_short
from dkm_deploy.conversion.target import Rewrite
from dkm_deploy.errors import DkmError
from dkm_deploy.palette import Palette

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from dkm_deploy.recipe import Recipe

# Before it, every initializer had to be an input of the graph too.
_OLDEST_IR = 4
# Of the values that the decodings of several weights share.
_SHARED = "dkm:"


def palettize_model(path: Path, out: Path, recipe: Recipe) -> Rewrite:
    """Cluster the weights of the model at ``path`` by exact k-means and write it to ``out``.

    A weight (see :mod:`converters.onnx.rewriting.weights`) is replaced by the decoding of its
    palette under its own name, in the main graph, where that takes fewer bytes. Names, shapes,
    functions, other nodes and metadata are kept, but for an exporter's notes; so are an opset from
    7 on and an IR version from 4 on. Tensors that the input keeps in other files are written into
    ``out``, or into one data file beside it if that would be larger than 2 GiB. The same file gives
    the same bytes.

    Raises:
        DkmError: the file is damaged or not ONNX, its opset cannot be lifted or is too new,
            it is palettized already or for training, a name is taken, the recipe does not fit it,
            or nothing in it can be palettized.
    """
    source = load_source(path)
    model = source.model
    untried = tuple(check_lifted(path, model)) if source.lifted else ()
    try:
        check_model(model)
        found = find_weights(model)
        assignment = assign_to_shapes(recipe, {n: t.dims for n, t in found.tensors.items()})
        specs = assignment.specs
        opset = default_opset(model)
        planned = {
            name: encoding_of(name, found.tensors[name], spec, opset)
            for name, spec in specs.items()
        }
        small = too_small(found.tensors, planned)
        dense = {**found.dense, **assignment.dense, **small}
        smaller = [name for name in specs if name not in small]
        if not smaller:
            raise DkmError(f"there is nothing to palettize: {first_reasons(dense)}")
        check_free({name: planned[name] for name in smaller}, graph_values(model))
        palettes = {
            name: cluster_tensor(name, found.tensors[name], specs[name]) for name in smaller
        }
    except DkmError as error:
        raise DkmError(f"{path}: {error}") from error
    before = ledger(path).total_bytes
    write_with(model, palettes, out)
    adjusted = {n: change for n, change in assignment.adjusted.items() if n in palettes}
    unchecked = (*untried, *check_rewritten(model, path, out))
    return Rewrite(palettes, dense, unchecked, before, adjusted, source.notes)


def write_with(model: ModelProto, palettes: Mapping[str, Palette], out: Path) -> None:
    """Put palettes in place of weights of a model, which is changed, and write it to ``out``."""
    narrow = [
        held.name
        for held in graph_values(model).held
        if held.name in palettes and held.tensor is not None and is_bfloat16(held.tensor)
    ]
    take_out(model, set(palettes))
    graph, weights = editable(model.graph, palettes)
    for name in narrow:
        weights[name].dtype = ir.DataType.BFLOAT16
    insert(graph, weights, palettes, opset=default_opset(model))
    for name in narrow:
        narrow_lut(graph.initializers[f"{name}.lut"])
    write_back(graph, model.graph)
    model.ir_version = max(model.ir_version, _OLDEST_IR)
    save_model(model, out)


def check_model(model: ModelProto) -> None:
    """Raise DkmError if the model is none that palettes can be put into."""
    opset = default_opset(model)
    newest = onnx.defs.onnx_opset_version()
    if opset < OLDEST_OPSET:
        raise DkmError(
            f"its opset is {opset or 'not given'}, and decoding palettes needs {OLDEST_OPSET} or "
            "newer"
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
            f"palettized already ({names_in_short(palettized, 3)}); start from the dense model"
        )


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
