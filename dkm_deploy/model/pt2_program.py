"""A ``.pt2`` file, which ``torch.export.save`` wrote, as an ordinary module.

Reading one is running code: PyTorch unpickles what the archive says is pickled, and evaluates
expressions that it holds. It is for files of people whose Python code one would run as well.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from dkm_deploy._support.paths import existing_path
from dkm_deploy._support.silence import quiet
from dkm_deploy.errors import DkmError, reason_of
from dkm_deploy.model.inputs import Inputs
from dkm_deploy.nn_utils.recurrent import GATES

SUFFIX = ".pt2"

_COMPILED = "data/aotinductor/"
_PROGRAMS = ("models/model.json", "serialized_exported_program.json")  # the second until 2.7
_GATES = {torch.ops.aten.lstm.input: 4, torch.ops.aten.gru.input: 3}
_PARTS = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")


@dataclass(frozen=True)
class Pt2Program:
    """What a ``.pt2`` file holds.

    Attributes:
        model: a plain module in eval mode. Its parameters and buffers have the names that they had
            in the model that was exported, and ``forward`` the same arguments.
        example: the inputs that it was exported with, by argument; None if they were not kept.
        dynamic_shapes: the dimensions of ``example`` that were left free, as
            ``torch.export.export`` takes them; None if all are fixed.
    """

    model: nn.Module
    example: Inputs | None
    dynamic_shapes: Any

    def export_with(self, given: Inputs | None) -> tuple[Inputs | None, Any]:
        """Inputs and their free dimensions: those given, all fixed, or else its own."""
        return (self.example, self.dynamic_shapes) if given is None else (given, None)


def load_program(path: Path) -> Pt2Program:
    """Read a ``.pt2`` file.

    A copy of the module keeps what hangs on its parameters, which one of the module that
    ``ExportedProgram.module`` gives does not. It checks inputs as that one does: what was fixed at
    export stays so. Its ``fixed_batch`` is the first dimension of its inputs, None if it is free.

    Raises:
        DkmError: the file is missing or damaged, holds no program or a compiled one, or one that
            was exported in training mode.
    """
    path = existing_path(path)
    _check_archive(path)
    try:
        with quiet():
            program = torch.export.load(path)
            _use_first_names(program)
            graph = program.module()
    except Exception as error:  # torch.export has many kinds, and forged archives give any
        raise DkmError(
            f"{path}: damaged, or not of this version of PyTorch: {reason_of(error)}"
        ) from error
    _check_mode(path, program.graph)
    with path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    model = _ordinary(graph, content, _fixed_batch(program))
    return Pt2Program(model, *_example(program, model))


def fixed_batch(model: nn.Module) -> int | None:
    """Samples that the model of a ``.pt2`` file takes at a time; None if any, as of others."""
    batch: int | None = getattr(model, "fixed_batch", None)
    return batch


def _check_archive(path: Path) -> None:
    """Raise DkmError if a file is no archive of a program."""
    try:
        with zipfile.ZipFile(path) as archive:
            names, damaged = archive.namelist(), archive.testzip()
    # RuntimeError: a part is encrypted, or compressed in a way that is unknown.
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, RuntimeError) as error:
        raise DkmError(f"{path}: not a .pt2 file, or cut short: {error}") from error
    if damaged is not None:
        raise DkmError(f"{path}: damaged: the checksum of {damaged} is wrong")
    if any(_COMPILED in name for name in names):
        raise DkmError(
            f"{path}: compiled by AOTInductor for one machine; give what torch.export.save writes"
        )
    if not any(name.endswith(_PROGRAMS) for name in names):
        raise DkmError(f"{path}: holds no program that torch.export.save wrote, or is cut short")


def _ordinary(graph: fx.GraphModule, content: str, fixed_batch: int | None) -> nn.Module:
    """The module of a program without what ties it to its graph.

    It prints as a digest of its file: what it computes is in no parameter and no submodule.
    """
    parts = {
        "forward": type(graph).forward,
        "_in_spec": graph._in_spec,  # of arguments; no attributes, for copying them warns
        "_out_spec": graph._out_spec,
        "extra_repr": lambda _: f"sha256={content}",
        "fixed_batch": fixed_batch,
    }
    model: nn.Module = type("Program", (nn.Module,), parts)()
    constants = [node.target for node in graph.graph.nodes if node.op == "get_attr"]
    kept = {*_PARTS, *constants}
    vars(model).update({name: value for name, value in vars(graph).items() if name in kept})
    _mark_gates(model, graph.graph)
    return model.eval()


def _mark_gates(model: nn.Module, graph: fx.Graph) -> None:
    """Say of the layers that are recurrent how many gates their weights have."""
    for node in graph.nodes:
        for weight in node.all_input_nodes if node.target in _GATES else ():
            if weight.op == "get_attr":
                layer = model.get_submodule(weight.target.rpartition(".")[0])
                setattr(layer, GATES, _GATES[node.target])


def _use_first_names(program: ExportedProgram) -> None:
    """A tied parameter goes by its first name in the model; ``torch.export`` takes the last."""
    first: dict[object, str] = {}
    alias: dict[str | None, str] = {}
    for name, tensor in program.state_dict.items():
        place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        alias[name] = first.setdefault(place if tensor.numel() else name, name)
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.PARAMETER:
            spec.target = alias.get(spec.target, spec.target)


def _check_mode(path: Path, graph: fx.Graph) -> None:
    """Raise DkmError if a layer was exported as it trains, which nothing can change any more."""
    for node in graph.nodes:
        if not isinstance(node.target, torch._ops.OpOverload):
            continue
        named = zip((one.name for one in node.target._schema.arguments), node.args, strict=False)
        given = dict(named) | node.kwargs
        trains = given.get("train") is True or given.get("training") is True
        # BatchNorm without statistics of its own always takes those of the batch.
        if trains and given.get("running_mean", True) is not None:
            raise DkmError(
                f"{path}: exported in training mode ({node.target}); export model.eval()"
            )


def _inputs(program: ExportedProgram) -> list[Any]:
    """What stands for each input in the graph: tensors of the shapes it takes."""
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    return [nodes[str(name)].meta.get("val") for name in program.graph_signature.user_inputs]


def _fixed_batch(program: ExportedProgram) -> int | None:
    ranked = (value for value in _inputs(program) if torch.is_tensor(value) and value.ndim)
    first = next(ranked, None)
    return first.shape[0] if first is not None and isinstance(first.shape[0], int) else None


def _example(program: ExportedProgram, model: nn.Module) -> tuple[Inputs | None, Any]:
    """Example inputs by argument, and their free dimensions."""
    if program.example_inputs is None:
        return None, None
    args, kwargs = program.example_inputs
    ordered = [*args, *(kwargs[name] for name in program.call_spec.in_spec.child(1).context)]
    example = dict(zip(_arguments(model), ordered, strict=True))
    spans = program.range_constraints
    free = [_free(value, spans) for value in _inputs(program)]
    if not any(free):
        return example, None
    _, spec = pytree.tree_flatten(example)
    return example, pytree.tree_unflatten(free, spec)


def _arguments(model: nn.Module) -> list[str]:
    code = type(model).forward.__code__
    return list(code.co_varnames[1 : code.co_argcount])


def _free(value: Any, spans: Any) -> dict[int, Any] | None:
    """The free dimensions of an input, each with its bounds."""
    if not torch.is_tensor(value):
        return None
    sizes: list[Any] = list(value.shape)
    free = {
        place: _dimension(spans.get(size.node.expr))
        for place, size in enumerate(sizes)
        if not isinstance(size, int)
    }
    return free or None


def _dimension(span: Any) -> Any:
    """A free dimension within the bounds of ``span``, if it has any."""
    if span is None:
        return Dim.AUTO
    upper = int(span.upper) if span.upper.is_Integer else None
    return Dim.AUTO(min=int(span.lower), max=upper)
