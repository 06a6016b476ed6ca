"""A matrix that all users want transposed is stored and decoded so: ``<weight>.T``.

A product of more than two dimensions takes its weight with the input channels first. Runtimes would
decode the matrix and then copy it.
"""

from __future__ import annotations

from math import prod

import onnx_ir as ir

from converters.onnx.graph.consumers import applies, attribute, used_elsewhere, users_of
from dkm_deploy.palette import Palette

TURNED = ".T"


def can_turn(graph: ir.Graph, weight: ir.Value, palette: Palette) -> bool:
    """Whether all that uses a weight transposes it, and its palette looks no worse that way."""
    users = users_of(graph, weight)
    return (
        is_plain_matrix(palette)
        and len(palette.shape) == 2
        and bool(users)
        and all(node.op_type == "Transpose" and _swaps(node) for node in users)
        and not any(used_elsewhere(graph, v) for v in (weight, *(n.outputs[0] for n in users)))
    )


def is_plain_matrix(palette: Palette) -> bool:
    """Whether a palette is one LUT of single values, with no per-channel scale."""
    return palette.cluster_dim == prod(palette.groups) == 1 and palette.scale is None


def only_user(graph: ir.Graph, weight: ir.Value, palette: Palette) -> tuple[ir.Node, bool] | None:
    """The one node that uses a weight, and whether it does behind a Transpose; None if several do.

    Behind one that :func:`can_turn` it is a MatMul, and else the Transpose itself.
    """
    users = users_of(graph, weight)
    if len(users) != 1 or used_elsewhere(graph, weight):
        return None
    if not can_turn(graph, weight, palette):
        return users[0], False
    turned = users[0].outputs[0]
    behind = users_of(graph, turned)
    alone = len(behind) == 1 and applies(behind[0], "MatMul", turned)
    return (behind[0], True) if alone else None


def use_turned(graph: ir.Graph, weight: ir.Value, decoded: ir.Value) -> None:
    """Give ``decoded`` to all that reads the weight's transpose, and take the Transposes out."""
    for node in users_of(graph, weight):
        node.outputs[0].replace_all_uses_with(decoded)
        graph.remove(node, safe=True)


def remove_unused_transposes(graph: ir.Graph, weight: ir.Value) -> None:
    """Remove what transposed a weight for products that no longer ask for it."""
    for node in users_of(graph, weight):
        turned = node.outputs[0]
        if node.op_type == "Transpose" and not turned.uses() and not turned.is_graph_output():
            graph.remove(node, safe=True)


def _swaps(node: ir.Node) -> bool:
    return list(attribute(node, "perm", [1, 0])) == [1, 0]
