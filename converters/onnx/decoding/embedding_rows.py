"""Rows of a palettized embedding: packed rows are gathered, and only those are decoded."""

from __future__ import annotations

from math import prod

import onnx_ir as ir

from converters.onnx.decoding import bit_planes
from converters.onnx.decoding.builder import Builder
from converters.onnx.decoding.encode import join, table_of, together_in
from converters.onnx.decoding.encoding import Encoding, Replacement, finish
from converters.onnx.graph.consumers import attribute, name_of, used_elsewhere, users_of
from dkm_deploy.palette import Palette


def gathered_rows(
    graph: ir.Graph, weight: ir.Value, palette: Palette, opset: int
) -> list[Replacement]:
    """The results of the nodes that use a weight, if each gathers rows by numbers of a run.

    Args:
        graph: the main graph.
        weight: a value that its nodes use.
        palette: of the weight.
        opset: of the model, 7 or newer.
    """
    if used_elsewhere(graph, weight) or not _holds_rows(palette):
        return []
    found: list[Replacement] = []
    for node in users_of(graph, weight):
        ids = _row_numbers(node, weight)
        if ids is None or ids.shape is None:
            return []
        result = node.outputs[0]
        rank, into = ids.shape.rank(), name_of(result)
        rows = encode_rows(name_of(weight), palette, ids, rank, into, opset)
        found.append(Replacement(result, node, rows))
    return found


def _row_numbers(node: ir.Node, weight: ir.Value) -> ir.Value | None:
    """What gives the rows that a node gathers; None if it does not, or by a constant or one."""
    gathers = node.op_type == "Gather" and len(node.outputs) == 1  # as all do that are not damaged
    if not gathers or node.inputs[0] is not weight or attribute(node, "axis", 0) != 0:
        return None
    ids = node.inputs[1]
    some = ids is not None and ids.shape is not None and ids.shape.rank() > 0
    return None if ids is None or not some or ids.is_initializer() else ids


def _holds_rows(palette: Palette) -> bool:
    """Whether rows of a palette's weight can be decoded on their own: see :func:`encode_rows`."""
    if len(palette.shape) != 2 or prod(palette.groups) > 1:
        return False
    if palette.cluster_dim > 1 and palette.axis == 0:
        return False
    row = palette.indices.shape[1]
    together = together_in(palette, row)
    return bit_planes.fill_bytes(row // together, palette.bits * together)


def encode_rows(
    weight: str, palette: Palette, ids: ir.Value, rank: int, into: str, opset: int
) -> Encoding:
    """``Gather(weight, ids)`` without the whole weight.

    Args:
        weight: name of the parameter.
        palette: one whose rows can be decoded on their own: of a matrix with one LUT, whose rows
            end with a byte.
        ids: the value with row numbers, of shape ``(..)``.
        rank: of ``ids``.
        into: name of the result, of shape ``(.., columns)``.
        opset: of the model, 7 or newer.
    """
    rows, row = palette.indices.shape
    together = together_in(palette, row)
    graph = Builder(weight, into, opset)
    joined = join(palette.indices.reshape(-1, together), palette.bits).reshape(rows, -1)
    stored = bit_planes.store(graph, f"{weight}.indices", joined, palette.bits * together)
    data = [graph.node("Gather", plane.value, ids) for plane in stored.planes]
    table, _ = table_of(graph, graph.tensor(f"{weight}.lut", palette.lut), palette, together)
    values = graph.node("Gather", table, bit_planes.symbols(graph, stored, data))
    # The leading dimensions as they are.
    values = graph.node("Reshape", values, graph.int64([*[0] * rank, palette.shape[1]]))
    if palette.scale is not None:
        scales = graph.node("Gather", graph.tensor(f"{weight}.scale", palette.scale), ids)
        graph.node("Mul", values, scales)
    graph.rename_last(into)
    return finish(graph)
