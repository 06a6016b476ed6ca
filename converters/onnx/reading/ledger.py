"""Every byte of an ONNX file and its data files: the file's bytes are walked, field by field."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from onnx import ModelProto, TensorProto

from converters.onnx.graph.load import load, outside
from converters.onnx.graph.tensors import graphs
from converters.onnx.reading.find_decodes import find_decodes
from converters.onnx.reading.protobuf_fields import fields
from dkm_deploy.errors import DkmError
from dkm_deploy.formats.ledger import Kind, Ledger, LedgerEntry, balanced_ledger

if TYPE_CHECKING:
    from pathlib import Path

_METADATA = {"doc_string", "metadata_props", "producer_name", "producer_version", "model_version"}
_TYPES = ("raw", "float", "int32", "string", "int64", "double", "uint64")
_PAYLOAD = {f"{name}_data" for name in _TYPES}
_PARTS = {
    "NodeProto": "nodes",
    "AttributeProto": "nodes",
    "TensorProto": "tensor headers",
    "ValueInfoProto": "inputs and outputs",
    "TypeProto": "inputs and outputs",
    "Tensor": "inputs and outputs",
    "TensorShapeProto": "inputs and outputs",
    "Dimension": "inputs and outputs",
}
# Shapes, axes and counts; a larger integer tensor is a table of the model.
_SMALL = 64
_INTEGERS = (TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL)

Key = tuple[Kind, str]
Names = dict[str, Key]
_Sizes = Iterator[tuple[Key, int]]
_Region = tuple[int, int, Key]


def ledger(path: Path) -> Ledger:
    """Bytes of the file at ``path``, and of its data files, by tensor and kind.

    ``indices`` and ``lut`` are the payloads that the graph decodes, under the weight's name, and
    ``dense`` those of all other tensors, but for scalars and small integer tensors, which are
    ``graph``: like nodes, value infos, and the headers of tensors. ``padding`` is what no output
    needs: initializers that nothing uses, fields that ONNX does not know, and bytes of a data file
    that no tensor has.

    Raises:
        DkmError: the file is damaged or not ONNX, or a data file is not there or too short.
    """
    model = load(path, largest=0)
    names = tensor_names(model)
    data = memoryview(path.read_bytes())
    sizes: Counter[Key] = Counter()
    try:
        for key, size in _message(data, 0, len(data), ModelProto.DESCRIPTOR, names):
            sizes[key] += size
    except ValueError as error:
        raise DkmError(f"{path}: {error}") from error
    files = _regions(model, path, names)
    for file, regions in files.items():
        for key, size in _laid_out(file, regions):
            sizes[key] += size
    entries = [LedgerEntry(kind, name, size) for (kind, name), size in sizes.items()]
    return balanced_ledger(path, entries, files)


def tensor_names(model: ModelProto) -> Names:
    """Kind and weight of the initializers that palettes are decoded from, and of unused ones."""
    names: Names = {name: ("padding", f"unused {name}") for name in _unused_initializers(model)}
    for decode in find_decodes(model):
        names[decode.lut.name] = ("lut", decode.weight)
        if decode.scale is not None:
            names[decode.scale.name] = ("lut", decode.weight)
        names.update({plane.name: ("indices", decode.weight) for plane in decode.planes})
    return names


def _unused_initializers(model: ModelProto) -> set[str]:
    """Initializers of the main graph that no node, subgraph or output reads."""
    used = {value.name for value in model.graph.output}
    for graph, _ in graphs(model.graph):
        used.update(value.name for value in graph.output)
        used.update(name for node in graph.node for name in node.input)
    return {tensor.name for tensor in model.graph.initializer} - used


def _regions(model: ModelProto, path: Path, names: Names) -> dict[Path, list[_Region]]:
    """What lies where in each data file."""
    files: dict[Path, list[_Region]] = {}
    for tensor, region in outside(model, path):
        place = (region.offset, region.offset + region.length, _kind(tensor, names))
        files.setdefault(region.file, []).append(place)
    return files


def _laid_out(file: Path, regions: list[_Region]) -> _Sizes:
    """Sizes of all parts of a data file; bytes that tensors share are the first one's."""
    end = 0
    for start, stop, key in sorted(regions):
        if start > end:
            yield ("padding", file.name), start - end
        yield key, max(stop - max(start, end), 0)
        end = max(end, stop)
    yield ("padding", file.name), file.stat().st_size - end


def _message(data: memoryview, start: int, end: int, kind: Any, names: Names) -> _Sizes:
    """Sizes of all parts of the message in ``data[start:end]``; ``kind`` is its descriptor."""
    tensor = None
    if kind.name == "TensorProto":
        tensor = _kind(TensorProto.FromString(bytes(data[start:end])), names)
    for field in fields(data, start, end):
        known, part = kind.fields_by_number.get(field.number), _PARTS.get(kind.name, "model")
        size = field.end - field.content
        if known is None:
            yield ("padding", "unknown fields"), field.end - field.start
            continue
        if known.name in _METADATA:
            yield ("metadata", known.name), size
        elif tensor and known.name in _PAYLOAD:
            yield tensor, size
        elif known.message_type and field.sized:  # else protobuf does not know it either
            yield from _message(data, field.content, field.end, known.message_type, names)
        else:
            yield ("graph", part), size
        yield ("graph", part), field.content - field.start


def _kind(tensor: TensorProto, names: Names) -> Key:
    """What the values of ``tensor`` are."""
    return payload(tensor.name, tensor.dims, tensor.data_type, names)


def payload(name: str, dims: Sequence[int], data_type: int, names: Names) -> Key:
    """What the values of the tensor called ``name`` are, where ``names`` are those of palettes."""
    if name in names:
        return names[name]
    elements = prod(dims)
    small = elements <= _SMALL and data_type in _INTEGERS
    return ("graph", "constants") if small or elements == 1 else ("dense", name)
