"""Calls as coremltools' torch front end reads them."""

from __future__ import annotations

import torch
from torch.export import ExportedProgram


def with_defaults(program: ExportedProgram) -> ExportedProgram:
    """Write out the positional arguments that ATen calls leave at their defaults.

    The torch front end counts arguments as TorchScript gives them, all of them: without this
    ``max_pool2d(x, 2)`` and ``rms_norm`` fail in coremltools 9.0.
    """
    for node in program.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload):
            positional = [a for a in node.target._schema.arguments if not a.kwarg_only]
            missing = positional[len(node.args) :]
            if not any(a.name in node.kwargs for a in missing):
                node.args = (*node.args, *(a.default_value for a in missing))
    return program


def rename_text_nodes(program: ExportedProgram) -> ExportedProgram:
    """Rename nodes that go by a text argument, such as ``rounding_mode="floor"``, in place.

    The torch front end would give the value of the node for the text.
    """
    nodes = list(program.graph.nodes)
    texts = {a for node in nodes for a in (*node.args, *node.kwargs.values()) if isinstance(a, str)}
    for node in nodes:
        if node.op == "call_function" and node.name in texts:
            node._rename(f"{node.name}_value")
    return program
