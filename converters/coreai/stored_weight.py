"""One node for each palettized weight of a program: ``dkm::stored_weight(name)``.

coreai-torch turns every placeholder into a constant of its own making, and looks for decodings by
their names to pack the indices. With the placeholders gone, both are left to our lowering.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from dkm_deploy.conversion.exported import ExportedModel
from dkm_deploy.model.palettized import is_scale, weight_name

torch.library.define("dkm::stored_weight", "(str weight) -> Tensor")
STORED = torch.ops.dkm.stored_weight.default


def with_stored_weights(exported: ExportedModel, program: ExportedProgram) -> ExportedProgram:
    """Replace the decodings of ``program``, in place.

    Args:
        exported: what ``program`` was made from.
        program: the same, decomposed; placeholders have kept their names.
    """
    buffers = exported.program.graph_signature.inputs_to_buffers
    scales = {place for place, buffer in buffers.items() if is_scale(buffer)}
    for decode in program.graph.find_nodes(
        op="call_function", target=torch.ops.dkm.lut_to_dense.default
    ):
        weight = weight_name(buffers[decode.args[0].name])
        scaled = exported.palettes[weight].scale is not None
        _replace(decode, _scalings(decode, weight, scales) if scaled else [decode], weight)
    _drop_unused(program, buffers)
    program.graph_module.recompile()
    return program


def _replace(decode: Node, ends: list[Node], weight: str) -> None:
    with decode.graph.inserting_before(decode):
        stored = decode.graph.call_function(STORED, (weight,))
    stored.meta = dict(ends[0].meta)
    for end in ends:
        end.replace_all_uses_with(stored)
    for node in dict.fromkeys((*ends, decode)):
        node.graph.erase_node(node)


def _scalings(decode: Node, weight: str, scales: Collection[str]) -> list[Node]:
    """The nodes that multiply a decoded weight with its scale.

    Raises:
        RuntimeError: something else uses the weight.
    """
    for user in decode.users:
        if user.target is not torch.ops.aten.mul.Tensor or str(user.args[1]) not in scales:
            raise RuntimeError(
                f"{weight}: {user} reads it before its scale is applied; please report this"
            )
    return list(decode.users)


def _drop_unused(program: ExportedProgram, buffers: Collection[str]) -> None:
    """Remove placeholders of buffers that nothing uses."""
    unused = [
        node
        for node in program.graph.find_nodes(op="placeholder")
        if not node.users and node.name in buffers
    ]
    specs = program.graph_signature.input_specs
    names = {node.name for node in unused}
    specs[:] = [spec for spec in specs if spec.arg.name not in names]
    for node in unused:
        program.graph.erase_node(node)
