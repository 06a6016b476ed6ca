"""Lower ``dkm::stored_weight`` to Core AI's ``lut_to_dense``, index for index.

Each part of a palette is a resource, whose key says which parameter it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

# Not a public interface, but what coreai-torch hands to lowerings and takes from them.
from coreai._compiler.dialects import coreai
from coreai._compiler.ir import (
    DenseElementsAttr,
    DenseResourceElementsAttr,
    F16Type,
    F32Type,
    FloatAttr,
    IntegerType,
    RankedTensorType,
)
from numpy.typing import NDArray

from converters.coreai.index_widths import stored_bits
from converters.coreai.read_palettes import INDICES_KEY, LUT_KEY, SCALE_KEY
from dkm_deploy.packing import pack
from dkm_deploy.palette import Palette

_FLOATS = {np.dtype("float16"): F16Type, np.dtype("float32"): F32Type}


def lowering_table(palettes: Mapping[str, Palette]) -> Callable[[Any, Any, Any], Any]:
    """What coreai-torch calls for each ``stored_weight`` node.

    Args:
        palettes: by parameter name; LUTs in the program's dtype.
    """

    def lower(_values: Any, node: Any, _location: Any) -> Any:
        weight = node.args[0]
        return _decode_node(weight, palettes[weight])

    return lower


def _decode_node(weight: str, palette: Palette) -> Any:
    wide = palette.widen(stored_bits(palette.bits))
    index = IntegerType.get_unsigned(wide.bits)
    packed = pack(wide.indices, wide.bits)
    indices = _resource(weight + INDICES_KEY, packed, wide.indices.shape, index)
    lut = _floats(weight + LUT_KEY, wide.lut)
    axis = coreai.constant(np.array(wide.axis, np.int16))
    dense = coreai.lut_to_dense(indices, lut, axis)
    return dense if wide.scale is None else _scale_channels(dense, weight, wide.scale)


def _scale_channels(dense: Any, weight: str, scale: NDArray[np.floating]) -> Any:
    """A decoded weight times one value a channel, shifted by nothing before and after."""
    element = _FLOATS[scale.dtype].get()
    kind = RankedTensorType.get(scale.shape, element)
    none = DenseElementsAttr.get_splat(kind, FloatAttr.get(element, 0.0))
    shifts = [coreai.ConstantOp(value=none).result for _ in range(2)]
    return coreai.blockwise_shift_scale(dense, _floats(weight + SCALE_KEY, scale), *shifts)


def _floats(key: str, values: NDArray[np.floating]) -> Any:
    return _resource(key, values, values.shape, _FLOATS[values.dtype].get())


def _resource(key: str, data: NDArray[Any], shape: tuple[int, ...], element: Any) -> Any:
    """A constant whose bytes are kept under a key of their own."""
    kind = RankedTensorType.get(shape, element)
    held = DenseResourceElementsAttr.get_from_buffer(np.ascontiguousarray(data), key, kind)
    return coreai.ConstantOp(value=held).result
