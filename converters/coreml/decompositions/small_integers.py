"""Integers of 8 and 16 bits as those of 32 bits, which alone Core ML computes with."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node
from torch.fx.node import map_aggregate

from converters.coreml.decompositions.graph_writer import GraphWriter

_aten = torch.ops.aten
_SMALL = (torch.uint8, torch.int8, torch.int16)
_WITHIN = frozenset(  # give values that they were given, or smaller ones
    {
        *(_aten.alias.default, _aten.clone.default, _aten.remainder.Scalar, _aten.where.self),
        *(_aten.clamp.default, _aten.clamp_max.default, _aten.clamp_min.default),
        *(_aten.maximum.default, _aten.minimum.default, _aten.relu.default, _aten.sign.default),
    }
)


def widen_small_integers(program: ExportedProgram, images: Collection[str] = ()) -> None:
    """Have a program compute with 32 bits what it does with fewer, in place.

    What leaves the range of the smaller type goes on at its other end, as in PyTorch. Tensors that
    the program holds stay as they are: among them are the indices of palettes.

    Args:
        program: to be changed.
        images: names of inputs that come as floats, for Core ML gives pixels so.
    """
    held = _held(program)
    small = [node for node in program.graph.nodes if _is_small(node) and node.name not in held]
    types = {node: node.meta["val"].dtype for node in small}
    for node in small:
        node.meta["val"] = node.meta["val"].to(torch.int32)
        node.args, node.kwargs = (_with_wide_types(given) for given in (node.args, node.kwargs))
    for node, dtype in types.items():
        if _may_leave(node, dtype, types):
            _wrap(program, node, dtype)
    for node in small:
        if node.op == "placeholder" and node.name in images:
            _take_floats(program, node)
    program.graph_module.recompile()


def _is_small(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype in _SMALL


def _held(program: ExportedProgram) -> set[str]:
    """Names of the placeholders of all tensors that a program holds."""
    names = {node.name for node in program.graph.find_nodes(op="placeholder")}
    return names - set(program.graph_signature.user_inputs)


def _with_wide_types(given: Any) -> Any:
    return map_aggregate(given, lambda one: torch.int32 if one in _SMALL else one)


def _may_leave(node: Node, dtype: torch.dtype, types: Mapping[Node, torch.dtype]) -> bool:
    """Whether the values of a call may lie outside the range of their type."""
    if node.op != "call_function" or node.target in _WITHIN:
        return False
    if node.target in (_aten._to_copy.default, _aten.to.dtype):
        (given,) = node.all_input_nodes
        return types.get(given, given.meta["val"].dtype) not in (dtype, torch.bool)
    return torch.Tag.pointwise in getattr(node.target, "tags", ())


def _wrap(program: ExportedProgram, node: Node, dtype: torch.dtype) -> None:
    """Put the rest of a division by the count of the type's values behind a call."""
    users, info = list(node.users), torch.iinfo(dtype)
    writer, count = GraphWriter(program, node.next, node), info.max - info.min + 1
    wrapped = node
    if info.min:
        wrapped = writer.sub(wrapped, info.min)
    wrapped = writer.call(_aten.remainder.Scalar, wrapped, count)
    if info.min:
        wrapped = writer.add(wrapped, info.min)
    for user in users:
        user.replace_input_with(node, wrapped)


def _take_floats(program: ExportedProgram, node: Node) -> None:
    """Have an input come as floats that are whole numbers."""
    users = list(node.users)
    first = next(each for each in program.graph.nodes if each.op != "placeholder")
    node.meta["val"] = node.meta["val"].to(torch.float32)
    whole = GraphWriter(program, first, node).call(_aten._to_copy.default, node, dtype=torch.int32)
    for user in users:
        user.replace_input_with(node, whole)
