"""A matrix that all users want transposed is stored and decoded so: ``<weight>.T``.

A product of more than two dimensions takes its weight with the input channels first. Runtimes would
decode the matrix and then copy it.
"""

from __future__ import annotations

from math import prod

from onnx import GraphProto, NodeProto

from converters.onnx.graph.consumers import applies, attributes_of, used_elsewhere, users_of
from dkm_deploy.palette import Palette

TURNED = ".T"


def can_turn(graph: GraphProto, weight: str, palette: Palette) -> bool:
    """Whether all that uses a weight transposes it, and its palette looks no worse that way."""
    users = users_of(graph, weight)
    return (
        is_plain(palette)
        and len(palette.shape) == 2
        and bool(users)
        and all(node.op_type == "Transpose" and _swaps(node) for node in users)
        and not any(used_elsewhere(graph, v) for v in (weight, *(n.output[0] for n in users)))
    )


def is_plain(palette: Palette) -> bool:
    """Whether a palette is one LUT of single values, with no per-channel scale."""
    return palette.cluster_dim == prod(palette.groups) == 1 and palette.scale is None


def only_user(graph: GraphProto, weight: str, palette: Palette) -> tuple[NodeProto, bool] | None:
    """The one node that uses a weight, and whether it does behind a Transpose; None if several do.

    Behind one that :func:`can_turn` it is a MatMul, and else the Transpose itself.
    """
    users = users_of(graph, weight)
    if len(users) != 1 or used_elsewhere(graph, weight):
        return None
    if not can_turn(graph, weight, palette):
        return users[0], False
    turned = users[0].output[0]
    behind = users_of(graph, turned)
    alone = len(behind) == 1 and applies(behind[0], "MatMul", turned)
    return (behind[0], True) if alone else None


def use_turned(graph: GraphProto, weight: str) -> str:
    """Take the Transpose nodes of a weight out of the graph.

    Returns:
        What their users read now.
    """
    name = f"{weight}{TURNED}"
    turns = users_of(graph, weight)
    gone = {node.output[0] for node in turns}
    for node in turns:
        graph.node.remove(node)
    for node in graph.node:
        node.input[:] = [name if source in gone else source for source in node.input]
    return name


def _swaps(node: NodeProto) -> bool:
    return list(attributes_of(node).get("perm", [1, 0])) == [1, 0]
