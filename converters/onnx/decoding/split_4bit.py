"""Large 4-bit matrices, decoded at load in two halves that read the same bytes.

A byte holds an index of one output channel and one of the channel half the matrix further on. Each
half is looked up in a table for its bits and applied by a product of its own, and the results are
laid side by side. ONNX Runtime keeps every step of a decoding until all weights are decoded, so the
steps decide how much memory loading takes: here they are one int32 for two weights, and the matrix.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto

from converters.onnx.decoding import bit_planes
from converters.onnx.decoding.builder import Builder
from converters.onnx.decoding.chunked import PART, applied, put_together, with_input
from converters.onnx.decoding.encode import Encoding, finished, merged
from converters.onnx.decoding.matmul_nbits import is_product
from converters.onnx.decoding.transposed import TURNED, is_plain, only_user
from dkm_deploy.palette import Palette

_BITS = 4
_LARGE = 1 << 20  # weights


def use_in_halves(
    graph: GraphProto, weight: str, palette: Palette
) -> list[tuple[NodeProto, Encoding]]:
    """The one product that uses a weight, and what to put in its place; else empty.

    It is a Gemm or a MatMul behind a Transpose, of a large matrix of 4 bits with one LUT.
    """
    matrix = len(palette.shape) == 2 and palette.size >= _LARGE and palette.shape[0] % 2 == 0
    fits = palette.bits == _BITS and is_plain(palette) and matrix
    user = only_user(graph, weight, palette) if fits else None
    if user is None:
        return []
    node, turned = user
    if not turned and not is_product(graph, node, weight):
        return []
    return [(node, _in_halves(weight, palette, node, turned=turned))]


def _in_halves(weight: str, palette: Palette, node: NodeProto, *, turned: bool) -> Encoding:
    """Decode and apply half by half."""
    ends = [f"{weight}{TURNED if turned else ''}{PART}{half}" for half in range(2)]
    results = [f"{node.output[0]}{PART}{half}" for half in range(2)]
    indices = palette.indices.T if turned else palette.indices
    decoded = _decoded(weight, palette, np.split(indices, 2, int(turned)), ends)
    middle, stop = palette.shape[0] // 2, palette.shape[0]
    products = [
        Encoding((with_input(node, 1, end, result),), ())
        if turned
        else applied(node, end, result, bounds)
        for end, result, bounds in zip(ends, results, [(0, middle), (middle, stop)], strict=True)
    ]
    return merged([decoded, *products, put_together(node, results)])


def _decoded(
    weight: str, palette: Palette, halves: list[NDArray[np.uint8]], ends: list[str]
) -> Encoding:
    """Both halves of the indices, into two matrices of their shape."""
    lower, upper = halves
    graph = Builder(weight)
    packed = graph.tensor(f"{weight}.indices", lower | upper << np.uint8(_BITS))
    codes = graph.node("Cast", packed, to=TensorProto.INT32)
    lut = graph.node("Reshape", graph.tensor(f"{weight}.lut", palette.lut), graph.int64([-1]))
    tables = graph.node("Gather", lut, bit_planes.halves(graph))
    for half, end in enumerate(ends):
        table = graph.node("Gather", tables, graph.int32([half]))
        each = graph.node("Expand", table, graph.int64([len(lower), 256]))
        graph.node("GatherElements", each, codes, into=end, axis=1)
    return finished(graph)
