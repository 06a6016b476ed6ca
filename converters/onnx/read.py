"""Read the palettes of an ONNX file back from its bytes and its graph.

The graph of each decode is run, and the palette is what explains the result: its LUTs are the
stored ones, its indices are the rows that the graph computes, and decoding it gives the graph's
dense weight bit for bit. A file whose graph says something else is not read as what was meant.
"""

from __future__ import annotations

from itertools import accumulate
from math import prod
from operator import mul
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from converters.onnx.decodes import Decode, find_decodes
from converters.onnx.load import load
from dkm_deploy.errors import DkmError, first_line
from dkm_deploy.palette import Palette

if TYPE_CHECKING:
    from pathlib import Path

Array = NDArray[Any]


def read_palettes(path: Path) -> dict[str, Palette]:
    """The palettes of the file at ``path`` by weight name; empty where all weights are dense.

    Raises:
        DkmError: the file is damaged or not ONNX, or a decode in it is no palette.
    """
    return palettes_of(load(path), path)


def palettes_of(model: ModelProto, path: Path) -> dict[str, Palette]:
    """The palettes that the graph of ``model`` decodes, by weight name.

    Args:
        model: with all its tensors.
        path: the file it was read from, for errors.

    Raises:
        DkmError: a decode in it is no palette.
    """
    palettes = {}
    for decode in find_decodes(model):
        try:
            palettes[decode.weight] = _palette(model, decode)
        except DkmError as error:
            raise DkmError(f"{path}: {decode.weight}: {error}") from error
    return palettes


def _palette(model: ModelProto, decode: Decode) -> Palette:
    rows, before, dense = _run(model, decode)
    lut = next(numpy_helper.to_array(t) for t in decode.tensors if t.name == decode.lut)
    if dense.ndim != lut.ndim - 2 or dense.size != rows.size * lut.shape[-1]:
        raise DkmError(
            f"its {rows.size} indices and LUT of shape {lut.shape} do not give shape {dense.shape}"
        )
    axis = _axis(lut, before.shape[: decode.entry % before.ndim + 1], dense.shape)
    palette = Palette(_indices(rows, lut, axis, dense.shape), lut, axis)
    decoded = palette.decode()
    if decoded.dtype != dense.dtype or decoded.tobytes() != dense.tobytes():
        raise DkmError("the graph does not decode its LUT and indices as a palette does")
    return palette


def _run(model: ModelProto, decode: Decode) -> tuple[Array, Array, Array]:
    """The rows, the value before the last Reshape and the dense weight, as the graph has them."""
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None)
        for name in (decode.rows, decode.before, decode.weight)
    ]
    graph = helper.make_graph(decode.nodes, "decode", [], outputs, initializer=decode.tensors)
    part = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    try:
        with np.errstate(all="raise"):
            results: Any = ReferenceEvaluator(part).run(None, {})
    # A damaged graph can fail in any way that numpy and the evaluator can.
    except Exception as error:
        raise DkmError(f"its decoding cannot be run: {first_line(error)}") from error
    rows, before, dense = results
    return rows, before, dense


def _axis(lut: Array, leading: tuple[int, ...], shape: tuple[int, ...]) -> int:
    """The dimension of ``shape`` that a LUT entry fills.

    Args:
        lut: rank K + 2. If its entries have one value, any axis will do: the grouped one, or 0.
        leading: dimensions up to the entry's own, just before they become those up to the axis.
        shape: of the dense weight.
    """
    if lut.shape[-1] == 1:
        return next((dim for dim, count in enumerate(lut.shape[:-2]) if count > 1), 0)
    sizes = list(accumulate(shape, mul))
    if prod(leading) not in sizes:
        raise DkmError(f"its LUT entries do not fill one dimension of shape {shape}")
    return sizes.index(prod(leading))


def _indices(rows: Array, lut: Array, axis: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Indices from rows of the LUTs laid end to end; LUTs start at multiples of their entries."""
    dims = list(shape)
    if dims[axis] % lut.shape[-1]:
        raise DkmError(f"LUT entries of {lut.shape[-1]} values do not divide dimension {axis}")
    dims[axis] //= lut.shape[-1]
    indices: NDArray[np.uint8] = (rows.reshape(dims) % lut.shape[-2]).astype(np.uint8)
    return indices
