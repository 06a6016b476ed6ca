"""Rows of a palettized embedding: packed rows are gathered, and only those are decoded."""

from __future__ import annotations

from math import prod

from converters.onnx.decoding import bit_planes
from converters.onnx.decoding.builder import Builder
from converters.onnx.decoding.encode import Encoding, finished, join, table_of, together_in
from dkm_deploy.palette import Palette


def holds_rows(palette: Palette) -> bool:
    """Whether rows of a palette's weight can be decoded on their own: see :func:`encode_rows`."""
    if len(palette.shape) != 2 or prod(palette.groups) > 1:
        return False
    if palette.cluster_dim > 1 and palette.axis == 0:
        return False
    row = palette.indices.shape[1]
    together = together_in(palette, row)
    return bit_planes.are_whole(row // together, palette.bits * together)


def encode_rows(weight: str, palette: Palette, ids: str, rank: int, into: str) -> Encoding:
    """``Gather(weight, ids)`` without the whole weight.

    Args:
        weight: name of the parameter.
        palette: one that :func:`holds_rows`.
        ids: name of the value with row numbers, of shape ``(..)``.
        rank: of ``ids``.
        into: name of the result, of shape ``(.., columns)``.
    """
    rows, row = palette.indices.shape
    together = together_in(palette, row)
    graph = Builder(weight, unique=into)
    joined = join(palette.indices.reshape(-1, together), palette.bits).reshape(rows, -1)
    stored = bit_planes.store(graph, f"{weight}.indices", joined, palette.bits * together)
    data = [graph.node("Gather", plane.name, ids) for plane in stored.planes]
    table, _ = table_of(graph, graph.tensor(f"{weight}.lut", palette.lut), palette, together)
    values = graph.node("Gather", table, bit_planes.symbols(graph, stored, data))
    # The leading dimensions as they are.
    values = graph.node("Reshape", values, graph.int64([*[0] * rank, palette.shape[1]]))
    if palette.scale is not None:
        scales = graph.node("Gather", graph.tensor(f"{weight}.scale", palette.scale), ids)
        graph.node("Mul", values, scales)
    graph.rename_last(into)
    return finished(graph)
