"""Inputs of rank 0: Core ML takes arrays alone, so a number comes as an array of one."""

from __future__ import annotations

import torch
from torch.export import ExportedProgram


def take_arrays(program: ExportedProgram) -> None:
    """Have a program take inputs of shape ``(1,)`` in place of those of rank 0, in place."""
    names = set(program.graph_signature.user_inputs)
    for node in program.graph.find_nodes(op="placeholder"):
        value = node.meta["val"]
        if node.name not in names or value.ndim:
            continue
        users = list(node.users)
        with program.graph.inserting_after(node):
            number = program.graph.call_function(torch.ops.aten.squeeze.dim, (node, 0))
        number.meta["val"], node.meta["val"] = value, value.reshape(1)
        for user in users:
            user.replace_input_with(node, number)
    program.graph_module.recompile()
