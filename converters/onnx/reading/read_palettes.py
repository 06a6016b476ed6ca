"""Read the palettes of an ONNX file back from its bytes and its graph.

The graph of each decode is run twice: with its LUT, for the dense weight, and with the places of
the LUT's values in place of the values (and a scale of ones), which tells where every weight comes
from, however the graph finds it. The palette is what explains both: decoding it gives the graph's
dense weight bit for bit. A file whose graph says something else is not read as what was meant.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from converters.onnx.decoding.matmul_nbits import ZERO
from converters.onnx.graph.load import fill, load
from converters.onnx.reading.evaluate import evaluate
from converters.onnx.reading.find_decodes import Decode, find_decodes
from dkm_deploy.clustering.quantizers.int8_lut import step_of
from dkm_deploy.errors import DkmError, reason_of
from dkm_deploy.palette import Palette

Array = NDArray[Any]

_AT_ONCE = 65536  # bytes of a tensor that is read at once; dense weights may exceed the memory
_SMALL = 1 << 20  # elements of a value that any file may have
_VALUES_A_BYTE = 256  # a bit stands for a vector of 16 weights; as many again for the work


def read_palettes(path: Path) -> dict[str, Palette]:
    """The palettes of the file at ``path`` by weight name; empty where all weights are dense.

    Raises:
        DkmError: the file is damaged or not ONNX, or a decode in it is no palette.
    """
    return palettes_of(load(path, largest=_AT_ONCE), path)


def palettes_of(model: ModelProto, path: Path) -> dict[str, Palette]:
    """The palettes of a model that came from ``path``, which errors name."""
    palettes: dict[str, Palette] = {}
    for decode in find_decodes(model):
        fill(decode.tensors.values(), path)
        try:
            palette = _palette(decode)
            if palettes.setdefault(decode.weight, palette) != palette:
                raise DkmError("the graph decodes it in two ways that differ")
        except DkmError as error:
            raise DkmError(f"{path}: {decode.weight}: {error}") from error
        # A damaged graph can have any shapes, and none.
        except (ArithmeticError, LookupError, StopIteration, TypeError, ValueError) as error:
            raise DkmError(f"{path}: {decode.weight}: damaged: {reason_of(error)}") from error
    return palettes


def _palette(decode: Decode) -> Palette:
    lut = _array(decode.lut)
    known = {name: _array(t) for name, t in decode.tensors.items() if name != decode.lut.name}
    known |= {name: np.zeros((1,), np.int64) for name in decode.inputs}
    if decode.ids:
        known[decode.ids] = _all_rows(decode, known)
    limit = _SMALL + _VALUES_A_BYTE * sum(array.nbytes for array in known.values())
    if lut.size > limit:
        raise DkmError(f"its LUT of shape {lut.shape} is larger than its indices can use")
    scale = None if decode.scale is None else known[decode.scale.name]
    places, dense = (
        evaluate(decode.nodes, known | values, limit)[decode.end]
        for values in (_places(decode, lut, scale), {decode.lut.name: lut})
    )
    if decode.turned:
        places, dense = places.T, dense.T
    if decode.ids:
        places, dense = (values.reshape(len(values), -1) for values in (places, dense))
    if decode.lut_codes:
        places = places.reshape(len(places), -1)
        dense = (dense.astype(np.float32).reshape(places.shape) - ZERO) * step_of(lut)
        lut = lut.astype(np.float32)
    if dense.ndim != lut.ndim - 2:
        raise DkmError(f"a LUT of shape {lut.shape} does not give a weight of shape {dense.shape}")
    return _explain_values(places.astype(np.int64), dense, lut, scale)


def _places(decode: Decode, lut: Array, scale: Array | None) -> dict[str, Array]:
    """The place of every LUT value, for the value that the graph decodes with, and unit scales."""
    counts = np.float32 if lut.size < 1 << 24 else np.float64
    places = np.arange(lut.size, dtype=counts).reshape(lut.shape)
    ones = {} if decode.scale is None else {decode.scale.name: np.ones_like(scale, counts)}
    return {decode.lut.name: lut, decode.lut_codes or decode.lut.name: places} | ones


def _explain_values(places: Array, dense: Array, lut: Array, scale: Array | None) -> Palette:
    """The palette that decodes to ``dense``, whose values come from ``places`` in the LUT."""
    # Of single values every axis is the same; the palette sets it.
    for axis in (dim for dim, length in enumerate(dense.shape) if length % lut.shape[-1] == 0):
        indices = _indices(places, lut, axis)
        if indices is None:
            continue
        palette = Palette(indices, lut, axis, scale=scale)
        # A LUT may be stored in a narrower type than the graph computes in.
        exact = np.can_cast(lut.dtype, dense.dtype, "safe")
        if exact and palette.decode().astype(dense.dtype).tobytes() == dense.tobytes():
            return palette
    raise DkmError("the graph does not decode its LUT and indices as a palette does")


def _all_rows(decode: Decode, known: dict[str, Array]) -> Array:
    """Every row number, in the rank of the numbers in the graph: its last Reshape adds one."""
    last = next(node for node in reversed(decode.nodes) if node.op_type == "Reshape")
    rank = known[last.input[1]].size - 1
    count = min(plane.dims[0] for plane in decode.planes)
    return np.arange(count).reshape(count, *[1] * (rank - 1))


def _array(tensor: Any) -> Array:
    """The values of an initializer. Raises DkmError if its bytes do not fit its shape."""
    try:
        array: Array = numpy_helper.to_array(tensor)
    # A damaged tensor can fail in any way that onnx and numpy can.
    except Exception as error:
        raise DkmError(f"{tensor.name} cannot be read: {reason_of(error)}") from error
    if array.dtype == ml_dtypes.bfloat16:  # which float32 holds
        return array.astype(np.float32)
    if array.dtype.kind in "cOSU":
        raise DkmError(f"{tensor.name} holds {array.dtype}, which is not a dtype of palettes")
    return array


def _indices(places: Array, lut: Array, axis: int) -> NDArray[np.uint8] | None:
    """Indices from places in the LUT, or None if its entries do not lie along ``axis``."""
    width = lut.shape[-1]
    dims = list(places.shape)
    dims[axis : axis + 1] = [dims[axis] // width, width]
    entries = np.moveaxis(places.reshape(dims), axis + 1, -1)
    if (entries % width != np.arange(width)).any() or np.ptp(entries // width, axis=-1).any():
        return None
    indices: NDArray[np.uint8] = (entries[..., 0] // width % lut.shape[-2]).astype(np.uint8)
    return indices
