"""State: what a model keeps from one run to the next, in buffers that its forward writes."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from dkm_deploy._support.silence import quiet
from dkm_deploy.errors import DkmError, reason_of
from dkm_deploy.nn_utils.state_guard import keep_random_state, own_copies, run_copy, written_buffers

_NEAR = 1e-4  # of the outputs' norm; runs of one model on one machine are equal, mostly to the bit
_PLAIN = (bool, int, float, str)


@dataclass(frozen=True)
class FirstRun:
    """What a model does when it runs, and runs again.

    Attributes:
        outputs: of the first run.
        written: names of the buffers that it writes.
        hidden: what it keeps elsewhere, in words; empty if nothing.
    """

    outputs: Any
    written: tuple[str, ...]
    hidden: str


def first_run(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> FirstRun:
    """Run a model, and once more to see what it keeps.

    A second run must give what a fresh copy gives that has the first one's buffers: what a model
    keeps anywhere else would be a constant in every file. Errors of forward come as they are.
    """
    with run_copy(model) as used:
        outputs = _run(used, args, kwargs)
        kept = {name: used.get_buffer(name).clone() for name in written_buffers(model, used)}
        second = _run(used, args, kwargs)
        again = _run_with(kept, model, args, kwargs) if kept else outputs
        hidden = "" if _equal_tensors(again, second) else _hidden(model, used)
    return FirstRun(outputs, tuple(kept), hidden)


def _run_with(
    buffers: Mapping[str, Tensor], model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    with run_copy(model) as fresh:
        for name, value in buffers.items():
            fresh.get_buffer(name).data = value
        return _run(fresh, args, kwargs)


def states_of(program: ExportedProgram, names: Mapping[str | None, str]) -> dict[str, Tensor]:
    """The buffers that a run writes, with the values that they start from.

    Args:
        program: as ``torch.export`` gives it, with operations that work in place.
        names: the first name of each buffer, by any name it has.

    Raises:
        DkmError: a run writes an input, a parameter or a tensor that is no buffer.
    """
    if not _may_write(program):
        return {}
    signature = functional(program).graph_signature
    for name in signature.user_inputs_to_mutate.values():
        raise DkmError(
            f"input {name!r}: forward writes to it in place, and no file does that for its caller; "
            f"start with {name} = {name}.clone(), and return it if the caller needs it"
        )
    for name in signature.parameters_to_mutate.values():
        raise DkmError(
            f"{name}: forward writes to this parameter; make it a buffer (register_buffer)"
        )
    found = dict.fromkeys(names.get(n, n) for n in signature.buffers_to_mutate.values())
    values = {**program.constants, **program.state_dict}
    return {name: values[name] for name in found}


def functional(program: ExportedProgram) -> ExportedProgram:
    """A program without operations that work in place. Raises DkmError if there is none."""
    try:
        with quiet():
            decomposed: ExportedProgram = program.run_decompositions({})
            return decomposed
    except RuntimeError as error:
        raise DkmError(f"torch.export cannot trace the model: {reason_of(error)}") from error


def check_seen(run: FirstRun, states: Collection[str]) -> None:
    """Raise DkmError if a model keeps what the states of its exported program do not tell."""
    for name in run.written:
        if name not in states:
            raise DkmError(
                f"{name}: forward writes to this buffer in a way that torch.export does not see, "
                "such as by .data; write to it with copy_"
            )
    if run.hidden:
        raise DkmError(run.hidden)


def _may_write(program: ExportedProgram) -> bool:
    """Whether an operation writes in place what may be the memory of an input of the graph."""
    branches = [m for m in program.graph_module.modules() if isinstance(m, GraphModule)][1:]
    if any(_writes(node) for branch in branches for node in branch.graph.nodes):
        return True
    shared: set[Node] = set(program.graph.find_nodes(op="placeholder"))
    for node in program.graph.nodes:
        if any(argument in shared for argument in _writes(node)):
            return True
        if any(argument in shared for argument in _views(node)):
            shared.add(node)
    return False


def _writes(node: Node) -> list[Node]:
    return _arguments(node, writes=True)


def _views(node: Node) -> list[Node]:
    """What the results of a node may share their memory with."""
    if node.target is operator.getitem:
        return list(node.all_input_nodes)
    return _arguments(node, writes=False)


def _arguments(node: Node, *, writes: bool) -> list[Node]:
    """Arguments that an operation writes, or that its result may be a view of."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return []
    declared = node.target._schema.arguments
    given = dict(zip((a.name for a in declared), node.args, strict=False)) | node.kwargs
    marked = (a.name for a in declared if a.alias_info and a.alias_info.is_write in {writes, True})
    leaves = (leaf for name in marked for leaf in pytree.tree_leaves(given.get(name)))
    return [leaf for leaf in leaves if isinstance(leaf, Node)]


@torch.no_grad()
def _run(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    args, kwargs = own_copies((args, kwargs))
    with keep_random_state():
        return own_copies(model(*args, **kwargs))


def _equal_tensors(one: Any, other: Any) -> bool:
    pairs = zip(_tensors(one), _tensors(other), strict=False)
    return len(_tensors(one)) == len(_tensors(other)) and all(_near_tensors(a, b) for a, b in pairs)


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, Tensor)]


def _near_tensors(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    a, b = (t.to(torch.complex128 if t.is_complex() else torch.float64) for t in (one, other))
    same = (a == b) | (a.isnan() & b.isnan())
    return bool(same.all() or (a - b).norm() <= _NEAR * a.norm())


def _hidden(model: nn.Module, used: nn.Module) -> str:
    told = ", ".join(_changed_attributes(model, used))
    return (
        "the model gives other outputs on a second run with the same inputs, and no buffer holds "
        f"what it keeps{f' ({told})' if told else ''}; keep state in a buffer (register_buffer)"
    )


def _changed_attributes(model: nn.Module, used: nn.Module) -> Iterator[str]:
    """Attributes that a run has changed, by qualified name."""
    pairs = zip(model.named_modules(), used.modules(), strict=False)
    for (prefix, module), other in pairs:
        before = vars(module)
        for name, value in vars(other).items():
            if not name.startswith("_") and not _tensors_alike(before.get(name), value):
                yield f"{prefix}.{name}".lstrip(".")


def _tensors_alike(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return _near_tensors(one, other)
    if isinstance(one, _PLAIN) or isinstance(other, (*_PLAIN, Tensor)):
        return type(one) is type(other) and one == other
    sized = isinstance(one, (list, tuple, dict)) and isinstance(other, (list, tuple, dict))
    return not sized or len(one) == len(other)
