"""Take what is no tensor out of the inputs and outputs of an exported program.

``torch.export`` fixes None, numbers and texts that it is given or gets back. Files know tensors
alone, and so do the converters of others.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, InputSpec
from torch.utils import _pytree as pytree

from dkm_deploy.model.output_names import path_step

_FIXED = (Tensor, bool, int, float, str, type(None))


def strange_outputs(outputs: Any) -> list[str]:
    """What ``torch.export`` would refuse in the outputs of a model, such as a cache, in words."""
    leaves, _ = pytree.tree_flatten_with_path(outputs)
    return [
        f"{'_'.join(map(path_step, path)) or 'output'} ({type(leaf).__name__})"
        for path, leaf in leaves
        if not isinstance(leaf, _FIXED)
    ]


def without_strange(outputs: Any) -> Any:
    """Outputs with None in place of these."""
    return pytree.tree_map(lambda leaf: leaf if isinstance(leaf, _FIXED) else None, outputs)


def tensors_only(program: ExportedProgram) -> ExportedProgram:
    """The program with its tensors alone for inputs and outputs, in their order.

    One that has no others is given back as it is; else it is changed, and takes its inputs flat.
    """
    signature, graph = program.graph_signature, program.graph
    fixed = {spec.arg.name for spec in signature.input_specs if _is_constant(spec)}
    kept = [
        place
        for place, spec in enumerate(signature.output_specs)
        if not isinstance(spec.arg, ConstantArgument)
    ]
    if not fixed and len(kept) == len(signature.output_specs):
        return program
    for node in graph.find_nodes(op="placeholder"):
        if node.name in fixed:
            graph.erase_node(node)
    output = graph.output_node()
    output.args = (tuple(output.args[0][place] for place in kept),)
    signature.input_specs = [s for s in signature.input_specs if not _is_constant(s)]
    signature.output_specs = [signature.output_specs[place] for place in kept]
    program.graph_module.recompile()
    _take_flat(program)
    return program


def _is_constant(spec: InputSpec) -> bool:
    return spec.kind is InputKind.USER_INPUT and isinstance(spec.arg, ConstantArgument)


def _take_flat(program: ExportedProgram) -> None:
    """Have the program say that it takes and gives tuples of tensors, as it does now."""
    signature = program.graph_signature
    call = program.module_call_graph[0].signature
    taken, given = len(signature.user_inputs), len(signature.user_outputs)
    call.in_spec = pytree.tree_structure(((0,) * taken, {}))
    call.out_spec = pytree.tree_structure((0,) * given)
    call.forward_arg_names = None
    program.example_inputs = None
