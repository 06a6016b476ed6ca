"""Every byte of a ``.ort`` file, from the places that its parts were read at."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from converters.onnx.reading.ledger import Key, Names, payload, tensor_names
from converters.ort.load import load
from dkm_deploy.formats.ledger import Ledger, LedgerEntry, balanced_ledger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from converters.ort.flatbuffer_reader import Span, Table

_METADATA = {"doc_string", "graph_doc_string", "producer_name", "producer_version", "ort_version"}
_PARTS = {
    "Node": "nodes",
    "NodeEdge": "nodes",
    "Attribute": "nodes",
    "Tensor": "tensor headers",
    "ValueInfo": "types of values",
    "TypeInfo": "types of values",
    "TensorTypeAndShape": "types of values",
    "Shape": "types of values",
    "Dimension": "types of values",
    "DimensionValue": "types of values",
    "OpIdKernelTypeStrArgsEntry": "types of operators",
    "KernelTypeStrArgsEntry": "types of operators",
    "ArgTypeAndIndex": "types of operators",
}
_LENGTH = 4  # what a vector starts with


def ledger(path: Path) -> Ledger:
    """Bytes of the file at ``path`` by tensor and kind, by the rules of an ``.onnx`` file.

    A part that is referred to several times counts once, for the first that refers to it. What
    lies between the parts, which aligns them, is ``padding``.

    Raises:
        DkmError: the file is damaged, or not of ONNX Runtime's format.
    """
    document, model = load(path)
    names = tensor_names(model)
    sizes: Counter[Key] = Counter()
    for span in document.spans:
        for key, size in _kinds(span, document.tables.get(span.owner), names):
            sizes[key] += size
    sizes["padding", "alignment"] = path.stat().st_size - sum(sizes.values())
    return balanced_ledger(
        path, [LedgerEntry(kind, name, size) for (kind, name), size in sizes.items()]
    )


def _kinds(span: Span, owner: Table | None, names: Names) -> Iterator[tuple[Key, int]]:
    """What the bytes of ``span`` are; ``owner`` is None for the file's header."""
    size = span.end - span.start
    if owner is None:
        yield ("graph", "model"), size
    elif span.part in _METADATA:
        yield ("metadata", span.part), size
    elif owner.kind == "StringStringEntry":
        yield ("metadata", "metadata_props"), size
    elif owner.kind == "Tensor" and span.part in ("raw_data", "string_data"):
        name = owner["name"].decode(errors="replace")  # a tensor that nothing uses may have any
        yield payload(name, owner["dims"], owner["data_type"], names), size - _LENGTH
        yield ("graph", "tensor headers"), _LENGTH
    else:
        yield ("graph", _PARTS.get(owner.kind, "model")), size
