"""A matrix that all users want transposed is stored and decoded so: ``<weight>.T``.

A product of more than two dimensions takes its weight with the input channels first. Runtimes would
decode the matrix and then copy it.
"""

from __future__ import annotations

from math import prod

from onnx import GraphProto, NodeProto

from converters.onnx.uses import attributes_of, used_elsewhere, users_of
from dkm_deploy.palette import Palette

TURNED = ".T"


def can_turn(graph: GraphProto, weight: str, palette: Palette) -> bool:
    """Whether all that uses a weight transposes it, and its palette looks no worse that way."""
    plain = palette.cluster_dim == prod(palette.groups) == 1 and palette.scale is None
    users = users_of(graph, weight)
    return (
        plain
        and len(palette.shape) == 2
        and bool(users)
        and all(node.op_type == "Transpose" and _swaps(node) for node in users)
        and not any(used_elsewhere(graph, v) for v in (weight, *(n.output[0] for n in users)))
    )


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
