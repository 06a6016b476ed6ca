"""A program that computes in float16 between float32 inputs and outputs."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import TensorArgument
from torch.fx import Graph, Node
from torch.utils import _pytree as pytree

from converters.coreai.stored_weight import STORED
from converters.storage import names_in_short

_WIDE, _HALF = torch.float32, torch.float16
_MOST = torch.finfo(_HALF).max
_LEAST = torch.finfo(_HALF).smallest_normal * torch.finfo(_HALF).eps


def in_float16(program: ExportedProgram) -> ExportedProgram:
    """Make a decomposed program compute in float16, in place.

    What lies beyond float16 becomes its largest value: the fill of an attention mask, as a rule.
    A number that it would round to zero becomes its smallest, for it may keep a sum from zero.
    """
    outputs = _wide_outputs(program)
    for table in (program.state_dict, program.constants):
        for name, value in table.items():
            if _is_wide(value):
                table[name] = _clamp_node(value)
    inputs = set(program.graph_signature.user_inputs)
    placeholders = program.graph.find_nodes(op="placeholder")
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    for node in placeholders:
        _narrow_placeholder(node, is_input=node.name in inputs)
    for node in calls:
        _narrow_call(node)
    _widen(program, outputs)
    program.graph_module.recompile()
    return program


def _is_wide(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == _WIDE


def _clamp_node(value: Tensor) -> Tensor:
    return torch.where(value.isinf(), value, value.clamp(-_MOST, _MOST)).to(_HALF)


def _narrow_placeholder(node: Node, *, is_input: bool) -> None:
    """A weight is float16 as it is; an input gets a cast behind it."""
    if not _is_wide(node.meta.get("val")):
        return
    if not is_input:
        node.meta["val"] = node.meta["val"].to(_HALF)
        return
    first = next(other for other in node.graph.nodes if other.op != "placeholder")
    with node.graph.inserting_before(first):
        cast = _cast(node.graph, node, _HALF)
    node.replace_all_uses_with(cast, delete_user_cb=lambda user: user is not cast)


def _narrow_call(node: Node) -> None:
    """The same call on float16 values, with what it gives worked out anew."""
    node.args, node.kwargs = pytree.tree_map(_narrow_argument, (node.args, dict(node.kwargs)))
    if node.target is STORED:
        node.meta["val"] = node.meta["val"].to(_HALF)
        return
    args, kwargs = pytree.tree_map_only(Node, lambda n: n.meta["val"], (node.args, node.kwargs))
    node.meta["val"] = node.target(*args, **kwargs)  # type: ignore[operator]  # it is a call


def _narrow_argument(argument: Any) -> Any:
    if argument is _WIDE:
        return _HALF
    if isinstance(argument, float) and math.isfinite(argument):
        number = math.copysign(_LEAST, argument) if vanishes(argument) else argument
        return min(max(number, -_MOST), _MOST)
    return argument


def vanishes(argument: Any) -> bool:
    """Whether it is a number that float16 rounds to zero."""
    return isinstance(argument, float) and 0 < abs(argument) <= _LEAST / 2


def vanishing_note(program: ExportedProgram) -> str | None:
    """A note on the numbers of a program that are too small for float16, if there are any."""
    leaves = pytree.tree_leaves([(node.args, dict(node.kwargs)) for node in program.graph.nodes])
    found = sorted({leaf for leaf in leaves if vanishes(leaf)})
    if not found:
        return None
    told = names_in_short([f"{number:.3g}" for number in found])
    return (
        f"{len(found)} constants are too small for float16 and are stored as {_LEAST:.3g}: {told}; "
        "compute_precision='float32' keeps them"
    )


def _wide_outputs(program: ExportedProgram) -> list[bool]:
    """Which outputs are float32."""
    (outputs,) = program.graph.output_node().args
    return [isinstance(node, Node) and _is_wide(node.meta["val"]) for node in outputs]


def _widen(program: ExportedProgram, wide: list[bool]) -> None:
    """Cast the outputs that were float32 back to it."""
    output, specs = program.graph.output_node(), program.graph_signature.output_specs
    (nodes,) = output.args
    kept = list(nodes)
    for place, was_wide in enumerate(wide):
        if was_wide:
            with program.graph.inserting_before(output):
                kept[place] = _cast(program.graph, kept[place], _WIDE)
            specs[place].arg = TensorArgument(name=kept[place].name)
    output.args = (tuple(kept),)


def _cast(graph: Graph, node: Node, dtype: torch.dtype) -> Node:
    cast = graph.call_function(torch.ops.aten._to_copy.default, (node,), {"dtype": dtype})
    cast.meta["val"] = node.meta["val"].to(dtype)
    return cast
