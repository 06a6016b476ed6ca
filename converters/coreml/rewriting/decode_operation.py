"""The operation that decodes a palette, in the protobuf, in place of the ``const`` of a weight.

Up to iOS 17 its parts are attributes, the indices a stream of bytes; from iOS 18 on they are inputs
of their own types. This is the form that coremltools writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dkm_deploy.formats.mlpackage.dtypes import program_number
from dkm_deploy.packing import pack
from dkm_deploy.palette import Palette

TYPED_INDICES = 8
"""The opset of iOS 18, from which on indices have types, LUTs groups and vectors."""
UNSCALED = "_unscaled"
"""Behind the name of a decoded weight that is multiplied with a scale."""
_IN_FILE = 10  # values; coremltools writes shorter tensors into the program itself
_FLOATS = {np.dtype(np.float16): "fp16", np.dtype(np.float32): "fp32"}

Pointer = tuple[str, int]
"""A weight file as the program calls it, and where in it the record of a blob lies."""


@dataclass(frozen=True)
class StoredTensor:
    """A part of a palette as a package holds it.

    Attributes:
        dtype: as ML programs spell it.
        shape: of the tensor.
        data: its bytes, uint8.
        padding_bits: unused bits of the last byte.
    """

    dtype: str
    shape: tuple[int, ...]
    data: NDArray[np.uint8]
    padding_bits: int = 0

    @property
    def in_file(self) -> bool:
        """Whether it lies in the weight file; else it is written in the program itself."""
        return int(np.prod(self.shape)) >= _IN_FILE


def stored_tensors(palette: Palette, opset: int) -> dict[str, StoredTensor]:
    """The ``indices`` and the ``lut`` of a palette, and its ``scale`` if it has one."""
    packed = pack(palette.indices, palette.bits)
    lut = palette.lut
    if opset < TYPED_INDICES:
        indices, lut = StoredTensor("uint8", packed.shape, packed), lut.reshape(-1)
    else:
        unused = 8 * packed.size - palette.indices.size * palette.bits
        indices = StoredTensor(f"uint{palette.bits}", palette.indices.shape, packed, unused)
    parts = {"indices": indices, "lut": _floats(lut)}
    return parts if palette.scale is None else {**parts, "scale": _floats(palette.scale)}


def make_decode(
    const: Any, palette: Palette, tensors: Mapping[str, StoredTensor], places: Mapping[str, Pointer]
) -> None:
    """Turn a ``const`` operation into one that decodes a palette under the same name.

    Args:
        const: the protobuf of the operation, which is changed.
        palette: without its scale, which is an operation of its own: see :func:`make_scaling`.
        tensors: from :func:`stored_tensors`.
        places: where those of them are that lie in a weight file.
    """
    del const.attributes["val"]
    const.type = "constexpr_lut_to_dense"
    if tensors["indices"].dtype == "uint8" and len(tensors["lut"].shape) == 1:
        for key in ("indices", "lut"):
            _fill(const.attributes[key], tensors[key], places.get(key))
        shape = np.array(palette.shape, "<u4")
        _fill(const.attributes["shape"], StoredTensor("uint32", shape.shape, _bytes(shape)), None)
        return
    for key in ("indices", "lut"):
        _fill(_input(const, key), tensors[key], places.get(key))
    if palette.cluster_dim > 1:
        axis = _input(const, "vector_axis")
        axis.type.tensorType.dataType = program_number("int32")
        axis.immediateValue.tensor.ints.values.append(palette.axis)


def make_scaling(
    decode: Any, scaled: Any, scale: StoredTensor, places: Mapping[str, Pointer]
) -> None:
    """Make a new operation, ``scaled``, of what multiplies a decoded weight channel by channel.

    It takes over the name of the decoded value, which gets another one. From iOS 26 on.
    """
    scaled.CopyFrom(decode)
    scaled.type = "constexpr_blockwise_shift_scale"
    scaled.inputs.clear()
    decode.outputs[0].name = f"{decode.outputs[0].name}{UNSCALED}"
    scaled.inputs["data"].arguments.add().name = decode.outputs[0].name
    _fill(_input(scaled, "scale"), scale, places.get("scale"))


def _input(operation: Any, key: str) -> Any:
    return operation.inputs[key].arguments.add().value


def _fill(value: Any, tensor: StoredTensor, place: Pointer | None) -> None:
    kind = value.type.tensorType
    kind.dataType, kind.rank = program_number(tensor.dtype), len(tensor.shape)
    for length in tensor.shape:
        kind.dimensions.add().constant.size = length
    if place is not None:
        value.blobFileValue.fileName, value.blobFileValue.offset = place
    elif tensor.dtype == "fp32":
        value.immediateValue.tensor.floats.values.extend(tensor.data.view("<f4").tolist())
    else:
        value.immediateValue.tensor.bytes.values = tensor.data.tobytes()


def _floats(values: NDArray[np.floating]) -> StoredTensor:
    return StoredTensor(_FLOATS[values.dtype], values.shape, _bytes(values))


def _bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)
