"""Export a frozen model once; every target lowers the same program."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from dkm_deploy.conversion.drop_non_tensors import strange_outputs, tensors_only, without_strange
from dkm_deploy.conversion.exported import ExportedModel
from dkm_deploy.conversion.model_state import FirstRun, check_seen, first_run, states_of
from dkm_deploy.conversion.unused_weights import leave_out, unused_note, used_weights
from dkm_deploy.errors import DkmError, reason_of
from dkm_deploy.model.inputs import Inputs, arguments
from dkm_deploy.model.output_names import output_names, separate_outputs
from dkm_deploy.model.palettized import is_scale, palettes
from dkm_deploy.model.steps import Steps
from dkm_deploy.nn_utils.hooks import unfused_attention
from dkm_deploy.nn_utils.in_float32 import model_in_float32
from dkm_deploy.nn_utils.model_check import model_of
from dkm_deploy.nn_utils.state_guard import eval_copy, keep_random_state
from dkm_deploy.nn_utils.weights import with_plain_parameters


def export(
    frozen: nn.Module, example_inputs: Inputs, *, dynamic_shapes: Any = None
) -> ExportedModel:
    """Export a frozen model with ``torch.export``, as it is in eval mode; it is left as it was.

    Args:
        frozen: from ``dkm.freeze``, ``dkm.palettize`` or ``dkm.load``; a model without palettes
            exports as it is. Parametrizations above a palette become operations; of other weights
            there is what comes out of their norms, masks and parametrizations.
        example_inputs: a tensor, a tuple of positional or a mapping of keyword inputs.
        dynamic_shapes: as ``torch.export.export`` takes it.

    Raises:
        DkmError: the model is not frozen, the inputs do not fit it, ``torch.export`` cannot trace
            it (with its reason), or forward writes an input or keeps state in something else than
            buffers.
    """
    frozen = with_plain_parameters(model_of(frozen, "frozen"))
    found, frozen = palettes(frozen), model_in_float32(frozen)
    # Core ML has no other order of dimensions, and what a file computes does not depend on it.
    args, kwargs = pytree.tree_map_only(Tensor, Tensor.contiguous, arguments(example_inputs))
    with unfused_attention(), keep_random_state():
        run = _run(frozen, args, kwargs)
        try:
            program = _trace(_without_strange(frozen), args, kwargs, dynamic_shapes)
        except DkmError as error:
            raise DkmError(f"{error}{_hint(run)}") from error
    program = tensors_only(program)
    _merge_decodes(program)
    first_names = _use_first_names(program, frozen)
    states = states_of(program, first_names)
    check_seen(run, states)
    separate_outputs(program)
    names = [*found, *(name for name, _ in frozen.named_parameters())]
    used = used_weights(program, names)
    unused = [name for name in names if name not in used]
    leave_out(program, unused)
    return ExportedModel(
        program,
        {name: palette for name, palette in found.items() if name in used},
        _input_names(program),
        output_names(run.outputs),
        states,
        tuple(_notes(run, frozen, unused, used)),
        Steps([example_inputs]) if states else example_inputs,
    )


def _notes(
    run: FirstRun, model: nn.Module, unused: Sequence[str], used: Collection[str]
) -> Iterator[str]:
    strange = strange_outputs(run.outputs)
    if strange:
        yield f"left out, as files hold tensors alone: {', '.join(strange)}"
    if unused:
        yield unused_note(model, unused, used)


def _without_strange(model: nn.Module) -> nn.Module:
    """A copy to trace that gives tensors, numbers and texts alone."""
    copied = eval_copy(model)
    copied.register_forward_hook(lambda _module, _inputs, outputs: without_strange(outputs))
    return copied


def _run(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> FirstRun:
    try:
        return first_run(model, args, kwargs)
    except Exception as error:  # any error of the user's own forward
        shapes = [tuple(t.shape) for t in pytree.tree_leaves((args, kwargs)) if torch.is_tensor(t)]
        raise DkmError(
            f"the model does not run on the example inputs of shape {shapes}: {reason_of(error)}"
        ) from error


@torch.no_grad()
def _trace(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic_shapes: Any
) -> ExportedProgram:
    try:
        with warnings.catch_warnings():
            # An LSTM or GRU refreshes its list of weights, which parametrized ones always do, and
            # of attributes that hold state first_run tells.
            warnings.filterwarnings("ignore", message=".*assigned during export.*")
            return torch.export.export(model, args, kwargs, dynamic_shapes=dynamic_shapes)
    except Exception as error:  # torch.export raises many kinds, each for the user's model
        raise DkmError(f"torch.export cannot trace the model: {reason_of(error)}") from error


def _hint(run: FirstRun) -> str:
    names = ", ".join(run.written)
    return f"; forward writes to {names}: do so with copy_, not by .data" if names else ""


def _merge_decodes(program: ExportedProgram) -> None:
    """A weight read several times (tied layers, recurrent cells) is decoded once."""
    graph = program.graph
    seen: dict[tuple[Any, ...], torch.fx.Node] = {}
    for node in list(graph.nodes):
        if node.target is torch.ops.dkm.lut_to_dense.default or _multiplies_scale(program, node):
            first = seen.setdefault((node.target, node.args), node)
            if first is not node:
                node.replace_all_uses_with(first)
                graph.erase_node(node)
    program.graph_module.recompile()


def _multiplies_scale(program: ExportedProgram, node: torch.fx.Node) -> bool:
    """Whether a node is the end of a decoding: LUT values times the scale of their channels."""
    if node.target is not torch.ops.aten.mul.Tensor:
        return False
    return is_scale(str(program.graph_signature.inputs_to_buffers.get(str(node.args[1]), "")))


def _use_first_names(program: ExportedProgram, model: nn.Module) -> dict[str | None, str]:
    """A tied tensor goes by its first name in the model; ``torch.export`` takes the last.

    Returns:
        The first name by every name.
    """
    first: dict[int, str] = {}
    alias: dict[str | None, str] = {}
    for named in (model.named_parameters, model.named_buffers):
        for name, tensor in named(remove_duplicate=False):
            alias[name] = first.setdefault(id(tensor), name)
    for spec in program.graph_signature.input_specs:
        spec.target = alias.get(spec.target, spec.target)
    return alias


def _input_names(program: ExportedProgram) -> tuple[str, ...]:
    return tuple(str(name) for name in program.graph_signature.user_inputs)
