"""A model of bfloat16 in float32: ONNX Runtime has few kernels of bfloat16 on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx import ModelProto

_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype")


def widen_bfloat16(model: ModelProto) -> bool:
    """Make float32 of every bfloat16 in a model, in place; every value of one is one of the other.

    Its results are rounded less often than those of the model.

    Returns:
        Whether there was any.
    """
    return _widen(model)


def _widen(message: Any) -> bool:
    """Tensors, types of values and attributes that name a type, at any depth."""
    from onnx import AttributeProto, TensorProto, TypeProto, numpy_helper

    narrow, wide = TensorProto.BFLOAT16, TensorProto.FLOAT
    if isinstance(message, TensorProto):
        if message.data_type != narrow:
            return False
        values = numpy_helper.to_array(message).astype("float32")
        message.CopyFrom(numpy_helper.from_array(values, message.name))
        return True
    found = False
    if isinstance(message, TypeProto.Tensor | TypeProto.SparseTensor):
        found = message.elem_type == narrow
        message.elem_type = wide if found else message.elem_type
    elif isinstance(message, AttributeProto) and message.name in _TYPE_ATTRIBUTES:
        found = message.i == narrow
        message.i = wide if found else message.i
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for part in value if field.is_repeated else [value]:
                found |= _widen(part)
    return found
