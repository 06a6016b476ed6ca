"""Weights that no output depends on: files are written without them, and a note lists them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node
from torch.utils import _pytree as pytree

from dkm_deploy.conversion.model_state import functional
from dkm_deploy.model.palettized import weight_name


def used_weights(program: ExportedProgram, names: Collection[str]) -> set[str]:
    """Those of some parameters and palettes that outputs, and states, of a program depend on.

    Args:
        program: as ``torch.export`` gives it, with the first names of tied weights.
        names: of the parameters and palettes of the model that it was exported from.
    """
    used = _read_weights(program)
    if not used.issuperset(names):
        # An operation that works in place has no users, only effects.
        used = _read_weights(functional(program))
    return used.intersection(names)


def leave_out(program: ExportedProgram, unused: Collection[str]) -> None:
    """Take the decoding of palettes that serve no output out of a program, in place.

    What still reads them (an operation in place on a tensor that is dropped) reads zeros.
    """
    buffers = program.graph_signature.inputs_to_buffers
    for node in program.graph.find_nodes(
        op="call_function", target=torch.ops.dkm.lut_to_dense.default
    ):
        if weight_name(buffers[node.args[0].name]) in unused:
            value = node.meta["val"]
            with program.graph.inserting_before(node):
                zeros = program.graph.call_function(
                    torch.ops.aten.zeros.default, (list(value.shape),), {"dtype": value.dtype}
                )
            zeros.meta["val"] = value
            node.replace_all_uses_with(zeros)
            program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()


def unused_note(model: nn.Module, unused: Sequence[str], used: Collection[str]) -> str:
    """One line that lists all weights that files are written without.

    A module goes by its name alone if none of its weights is used. Where a module keeps tensors of
    an earlier run, which its forward may read in place of its weights, the line says so.
    """
    listed = ", ".join(_in_short(unused, used))
    return f"left out, as no output depends on them: {listed}{_cached_text(model, unused)}"


def _in_short(unused: Sequence[str], used: Collection[str]) -> Iterable[str]:
    """The names of whole modules, and of single weights, that are not used."""
    needed = {start for name in used for start in _starts(name)}
    return dict.fromkeys(
        next(start for start in _starts(name) if start not in needed) for name in unused
    )


def _starts(name: str) -> list[str]:
    """``a``, ``a.b`` and ``a.b.c`` of ``a.b.c``."""
    return list(accumulate(name.split("."), "{}.{}".format))


def _cached_text(model: nn.Module, unused: Collection[str]) -> str:
    """What modules of unused weights keep as plain tensors, in words; empty if nothing."""
    modules = dict.fromkeys(weight.rpartition(".")[0] for weight in unused)
    kept = [cache for name in modules for cache in _plain_tensors(model, name)]
    if not kept:
        return ""
    return (
        f"; an earlier run has left tensors in {', '.join(kept)}, which forward may read in their "
        "place: for weights that count, convert a model that has not run before"
    )


def _plain_tensors(model: nn.Module, name: str) -> list[str]:
    """Attributes of a module that hold tensors which are neither parameters nor buffers."""
    return [
        f"{name}.{attribute}".lstrip(".")
        for attribute, value in vars(model.get_submodule(name)).items()
        if not attribute.startswith("_")
        and any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(value))
    ]


def _read_weights(program: ExportedProgram) -> set[str]:
    signature = program.graph_signature
    weights = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    waiting, live = [program.graph.output_node()], set[Node]()
    while waiting:
        fresh = [node for node in waiting.pop().all_input_nodes if node not in live]
        live.update(fresh)
        waiting += fresh
    return {weight_name(weights[node.name]) for node in live if node.name in weights}
