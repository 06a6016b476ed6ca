"""The dense tensors of an ONNX file, one at a time: what no palette is decoded from."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from onnx import TensorProto

from converters.onnx.graph.load import fill, load
from converters.onnx.graph.tensors import TensorPlace, array_of, graph_values, held_by_functions
from converters.onnx.reading.find_decodes import find_decodes
from converters.onnx.writing.float16_storage import HALF
from dkm_deploy.formats.dense_tensor import DenseTensor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from onnx import ModelProto

_BYTES: dict[int, int] = {
    TensorProto.FLOAT16: 2,
    TensorProto.BFLOAT16: 2,
    TensorProto.FLOAT: 4,
    TensorProto.DOUBLE: 8,
}
_AT_ONCE = 65536  # bytes of a tensor that is read at once; dense weights may exceed the memory


def read_dense(path: Path) -> Iterator[DenseTensor]:
    """The dense tensors of the file at ``path``, by the names of their initializers.

    Raises:
        DkmError: the file is damaged or not ONNX.
    """
    return dense_of(load(path, largest=_AT_ONCE), path)


def dense_of(model: ModelProto, path: Path) -> Iterator[DenseTensor]:
    """The dense tensors of a model that came from ``path``, which errors name."""
    in_palettes = {name for decode in find_decodes(model) for name in decode.tensors}
    for held in (*graph_values(model).held, *held_by_functions(model)):
        tensor = held.tensor
        if tensor is not None and tensor.data_type in _BYTES and held.name not in in_palettes:
            yield _dense(held, tensor, path)


def _dense(held: TensorPlace, tensor: TensorProto, path: Path) -> DenseTensor:
    def read() -> NDArray[Any]:
        copy = type(tensor)()
        copy.CopyFrom(tensor)  # what is filled in is let go with it
        fill([copy], path)
        return array_of(held.name, copy)

    size = prod(tensor.dims) * _BYTES[tensor.data_type]
    return DenseTensor(held.name.removesuffix(HALF), size, read)
