"""Look-ups whose results are only added to others: what they give may be spread by the addition."""

from __future__ import annotations

import torch
from torch.export import ExportedProgram
from torch.fx import Node

_aten = torch.ops.aten


def sums(program: ExportedProgram) -> dict[str, frozenset[str]]:
    """By the name of each such embedding, the names of the values that it is added to.

    These values have the sum's own shape, so it stays that if the embedding gives rows once that
    it would repeat.
    """
    found = {}
    for node in program.graph.find_nodes(op="call_function", target=_aten.embedding.default):
        others = [_other_addend(node, user) for user in node.users]
        if others and None not in others:
            found[node.name] = frozenset(other.name for other in others if other is not None)
    return found


def _other_addend(node: Node, user: Node) -> Node | None:
    """What ``user`` adds ``node`` to, if it is an addition to a value of the sum's shape."""
    if user.target is not _aten.add.Tensor:
        return None
    others = [arg for arg in user.args if isinstance(arg, Node) and arg is not node]
    if len(others) != 1 or _shape(others[0]) != _shape(user):
        return None
    return others[0]


def _shape(node: Node) -> list[str]:
    """The lengths as text, which compares free ones without fixing them."""
    return [str(length) for length in node.meta["val"].shape]
