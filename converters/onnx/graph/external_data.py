"""Move large tensors of a model into a data file beside it, named after it: ``model.onnx.data``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir
from onnx.external_data_helper import set_external_data

if TYPE_CHECKING:
    from pathlib import Path

    from onnx import GraphProto, TensorProto

LARGEST = 2**31 - 2**24  # bytes of tensors in one file, which leaves 16 MiB of 2 GiB for the graph
# Bytes. Runtimes want shapes and other small constants in the model itself.
_SMALL = 1024


def total_bytes(graph: ir.Graph) -> int:
    """Bytes of all tensors of a main graph."""
    return sum(_sizes(graph))


def move_weights_out(model: ir.Model, path: Path) -> None:
    """Write the large initializers of ``model`` to the data file of ``path``, one at a time."""
    if max(_sizes(model.graph), default=0) > _SMALL:  # else it would write an empty file
        ir.external_data.unload_from_model(
            model, path.parent, _data_file(path).name, size_threshold_bytes=_SMALL
        )


def move_tensors_out(graph: GraphProto, path: Path) -> None:
    """Append the initializers of ``graph`` that are still in it, and large, to the data file."""
    large = [tensor for tensor in graph.initializer if len(tensor.raw_data) > _SMALL]
    if not large:
        return
    file = _data_file(path)
    with file.open("ab") as data:
        for tensor in large:
            place = data.tell()
            set_external_data(tensor, file.name, offset=place, length=data.write(tensor.raw_data))
            tensor.ClearField("raw_data")


def stored_bytes(tensor: TensorProto) -> int:
    """Bytes of a tensor; of its values alone from 2 GiB on, where protobuf does not count."""
    values = len(tensor.raw_data)
    return values if values > LARGEST else int(tensor.ByteSize())


def _sizes(graph: ir.Graph) -> list[int]:
    tensors = (value.const_value for value in graph.initializers.values())
    return [tensor.nbytes for tensor in tensors if tensor is not None]


def _data_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.data")
