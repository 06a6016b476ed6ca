"""Large 4-bit matrices, decoded at load in two halves that read the same bytes.

A byte holds an index of one output channel and one of the channel half the matrix further on. Each
half is looked up in a table for its bits and applied by a product of its own, and the results are
laid side by side. ONNX Runtime keeps every step of a decoding until all weights are decoded, so the
steps decide how much memory loading takes: here they are one int32 for two weights, and the matrix.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from converters.onnx.decoding import bit_planes
from converters.onnx.decoding.builder import Builder
from converters.onnx.decoding.chunked import PART, apply_to_part, put_together, with_inputs
from converters.onnx.decoding.encoding import Encoding, Replacement, finish, merge
from converters.onnx.decoding.matmul_nbits import is_product
from converters.onnx.decoding.transposed import TURNED, is_plain_matrix, only_user
from converters.onnx.graph.consumers import name_of
from dkm_deploy.palette import Palette

_BITS = 4
_LARGE = 1 << 20  # weights


def use_in_halves(graph: ir.Graph, weight: ir.Value, palette: Palette) -> list[Replacement]:
    """The result of the one product that uses a weight; else empty.

    It is a Gemm or a MatMul behind a Transpose, of a large matrix of 4 bits with one LUT.
    """
    matrix = len(palette.shape) == 2 and palette.size >= _LARGE and palette.shape[0] % 2 == 0
    fits = palette.bits == _BITS and is_plain_matrix(palette) and matrix
    user = only_user(graph, weight, palette) if fits else None
    if user is None:
        return []
    node, turned = user
    if not turned and not is_product(node, weight):
        return []
    halves = _in_halves(name_of(weight), palette, node, turned=turned)
    return [Replacement(node.outputs[0], node, halves)]


def _in_halves(weight: str, palette: Palette, node: ir.Node, *, turned: bool) -> Encoding:
    """Decode and apply half by half."""
    names = [f"{weight}{TURNED if turned else ''}{PART}{half}" for half in range(2)]
    results = [f"{name_of(node.outputs[0])}{PART}{half}" for half in range(2)]
    indices = palette.indices.T if turned else palette.indices
    decoded, ends = _decode_halves(weight, palette, np.split(indices, 2, int(turned)), names)
    middle, stop = palette.shape[0] // 2, palette.shape[0]
    products = [
        Encoding((with_inputs(node, {1: end}, result),))
        if turned
        else apply_to_part(node, end, result, bounds)
        for end, result, bounds in zip(ends, results, [(0, middle), (middle, stop)], strict=True)
    ]
    return merge([decoded, *products, put_together(node, products)])


def _decode_halves(
    weight: str, palette: Palette, halves: list[NDArray[np.uint8]], names: list[str]
) -> tuple[Encoding, list[ir.Value]]:
    """Both halves of the indices, into two matrices of their shape."""
    lower, upper = halves
    graph = Builder(weight)
    packed = graph.tensor(f"{weight}.indices", lower | upper << np.uint8(_BITS))
    codes = graph.node("Cast", packed, to=ir.DataType.INT32)
    lut = graph.node("Reshape", graph.tensor(f"{weight}.lut", palette.lut), graph.int64([-1]))
    tables = graph.node("Gather", lut, bit_planes.halves(graph))
    ends: list[ir.Value] = []
    for half, name in enumerate(names):
        table = graph.node("Gather", tables, graph.int32([half]))
        each = graph.node("Expand", table, graph.int64([len(lower), 256]))
        ends.append(graph.node("GatherElements", each, codes, into=name, axis=1))
    return finish(graph), ends
