"""Palettes of bfloat16 weights: a LUT is float32 in the record, and bfloat16 in the file.

ONNX Runtime moves bfloat16 by Gather, Reshape, Transpose and Concat alone, which is enough.
"""

from __future__ import annotations

import ml_dtypes
import onnx_ir as ir


def is_bfloat16(weight: ir.Value) -> bool:
    """Whether a value is known to be of bfloat16."""
    return weight.dtype is ir.DataType.BFLOAT16


def narrow_lut(lut: ir.Value) -> None:
    """Store the LUT of a bfloat16 weight as bfloat16, which holds its values as they are."""
    if lut.const_value is not None:
        values = lut.const_value.numpy().astype(ml_dtypes.bfloat16)
        lut.const_value = ir.Tensor(values, ir.DataType.BFLOAT16, name=lut.name)
