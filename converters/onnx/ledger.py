"""Every byte of an ONNX file: the file's own bytes are walked, field by field."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, Any

from onnx import ModelProto, TensorProto

from converters.onnx.decodes import find_decodes
from converters.onnx.load import load
from converters.onnx.wire import fields
from dkm_deploy.errors import DkmError
from dkm_deploy.ledger import Entry, Kind, Ledger, balanced

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


def ledger(path: Path) -> Ledger:
    """Bytes of the file at ``path`` by tensor and kind.

    ``indices`` and ``lut`` are the payloads that the graph decodes, under the weight's name, and
    ``dense`` those of all other tensors, but for scalars and small integer tensors, which are
    ``graph``: like nodes, value infos, and the headers of tensors.

    Raises:
        DkmError: the file is damaged, not ONNX, or keeps tensors in other files.
    """
    model = load(path)
    data = memoryview(path.read_bytes())
    sizes: Counter[Key] = Counter()
    try:
        for key, size in _message(data, 0, len(data), ModelProto.DESCRIPTOR, _palettes(model)):
            sizes[key] += size
    except ValueError as error:
        raise DkmError(f"{path}: {error}") from error
    return balanced(path, [Entry(kind, name, size) for (kind, name), size in sizes.items()])


def _palettes(model: ModelProto) -> Names:
    """Kind and weight of the initializers that palettes are decoded from."""
    names: Names = {}
    for decode in find_decodes(model):
        names[decode.lut.name] = ("lut", decode.weight)
        if decode.scale is not None:
            names[decode.scale.name] = ("lut", decode.weight)
        names.update({plane.name: ("indices", decode.weight) for plane in decode.planes})
    return names


def _message(data: memoryview, start: int, end: int, kind: Any, names: Names) -> _Sizes:
    """Sizes of all parts of the message in ``data[start:end]``; ``kind`` is its descriptor."""
    tensor = _tensor(data[start:end], names) if kind.name == "TensorProto" else None
    for field in fields(data, start, end):
        known = kind.fields_by_number.get(field.number)
        name = known.name if known else "unknown fields"
        size = field.end - field.content
        if name in _METADATA:
            yield ("metadata", name), size
        elif tensor and name in _PAYLOAD:
            yield tensor, size
        elif known and known.message_type:
            yield from _message(data, field.content, field.end, known.message_type, names)
        else:
            yield ("graph", _PARTS.get(kind.name, "model")), size
        yield ("graph", _PARTS.get(kind.name, "model")), field.content - field.start


def _tensor(data: memoryview, names: Names) -> Key:
    """What the payload of the tensor in ``data`` is."""
    tensor = TensorProto.FromString(bytes(data))
    if tensor.data_location == TensorProto.EXTERNAL:
        raise DkmError(
            f"{tensor.name} lies in another file; save the model as one file to weigh it"
        )
    if tensor.name in names:
        return names[tensor.name]
    elements = prod(tensor.dims)
    small = elements <= _SMALL and tensor.data_type in _INTEGERS
    return ("graph", "constants") if small or elements == 1 else ("dense", tensor.name)
