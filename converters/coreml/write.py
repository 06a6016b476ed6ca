"""Write a Core ML package: coremltools lowers the program, we lower the palettes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.export import ExportedProgram

from converters.coreml.convert_program import RECURRENT_FLOAT16, convert_program
from converters.coreml.deployment import generation, stored_bits
from converters.coreml.lowering.broadcast_sums import sums
from converters.coreml.lowering.lower import Decodes
from converters.coreml.metadata import describe
from converters.coreml.mixed_precision import beyond_float16
from converters.coreml.numbers_as_arrays import take_arrays
from converters.coreml.options import Options
from converters.coreml.passes.compact_program import compact
from converters.coreml.silence import silent
from converters.storage import check_float16, names_in_short, widened_notes
from dkm_deploy.conversion.exported import ExportedModel
from dkm_deploy.formats.ledger import size_on_disk
from dkm_deploy.formats.mlpackage.value_names import value_name
from dkm_deploy.model.palettized import is_scale, weight_name

_aten = torch.ops.aten
_RECURRENT = (_aten.lstm.input, _aten.rnn_tanh.input, _aten.rnn_relu.input)


def write(exported: ExportedModel, path: Path, options: Options) -> tuple[str, ...]:
    """See :meth:`converters.coreml.CoreMLTarget.write`."""
    if options.compute_precision == "auto":
        options = replace(options, compute_precision="float16")
    return _write(exported, path, options)


def write_wider(exported: ExportedModel, path: Path, options: Options) -> tuple[str, ...] | None:
    """See :meth:`converters.coreml.CoreMLTarget.write_wider`."""
    if options.compute_precision != "auto":
        return None
    with TemporaryDirectory() as folder:
        wide = Path(folder) / path.name
        _write(exported, wide, replace(options, compute_precision="float32", names="full"))
        found = beyond_float16(wide, exported)
    if not found:
        return None
    size = size_on_disk(path)
    shutil.rmtree(path)
    notes = _write(exported, path, replace(options, compute_precision="float16"), found)
    return (*notes, f"what is float32 costs {size_on_disk(path) - size:,} bytes")


def _write(
    exported: ExportedModel, path: Path, options: Options, in_float32: frozenset[str] = frozenset()
) -> tuple[str, ...]:
    """Write in one precision, but for what makes or takes the values that are named."""
    if options.compute_precision == "float16":
        check_float16(exported.palettes)
    take_arrays(exported.program)
    lowered_by = partial(_decodes, exported, options)
    model, decodes, narrowing = convert_program(exported, options, lowered_by, in_float32)
    compact(model._spec.mlProgram, shorten=options.names == "short")
    describe(model, exported, options, decodes)
    # With its program at hand coremltools adds a debug map, and fails to where there are loops.
    model._mil_program = None
    with silent():
        model.save(str(path))
    _open_modes(path)
    narrowed = narrowing.notes() if narrowing else ()
    return (*_notes(exported, options), *_lookups(decodes.lookups), *narrowed)


def _decodes(exported: ExportedModel, options: Options, program: ExportedProgram) -> Decodes:
    """What lowers the palettes of ``program``, which is ``exported`` taken apart further."""
    return Decodes(
        _names(exported), _scales(exported), _float32(exported, options), sums(program), options
    )


def _float32(exported: ExportedModel, options: Options) -> set[str]:
    """Names of the palettes that a float16 program holds in float32."""
    if generation(options.minimum_deployment_target) >= RECURRENT_FLOAT16:
        return set()
    buffers = exported.program.graph_signature.inputs_to_buffers
    layers = [
        node
        for target in _RECURRENT
        for node in exported.program.graph.find_nodes(op="call_function", target=target)
    ]
    decodes = [weight for layer in layers for weight in layer.args[2]]
    indices = [decode.args[0] for decode in decodes if decode.args]
    return {weight_name(buffers[place.name]) for place in indices if place.name in buffers}


def _notes(exported: ExportedModel, options: Options) -> Iterator[str]:
    """What was not stored as asked, or costs more than it need."""
    target = options.minimum_deployment_target
    yield from widened_notes(
        exported.palettes, partial(stored_bits, deployment_target=target), target
    )
    if exported.states:
        yield (
            "the app must keep this state between runs, in float16 and zero at the start: "
            f"{names_in_short(list(exported.states))}"
        )
    nodes = exported.program.graph.find_nodes(
        op="call_function", target=torch.ops.aten.batch_norm.default
    )
    norms = [_module(exported, node) for node in nodes if _follows_decode(node.args[0])]
    if norms:
        yield (
            f"{len(norms)} BatchNorms after palettized layers stay operations; "
            f"fold them with dkm.fold_batch_norm before clustering: {names_in_short(norms)}"
        )


def _lookups(weights: Sequence[str]) -> Iterator[str]:
    """Of tables whose rows are looked up at run time, where a dense program has them ready."""
    if weights:
        yield (
            f"{len(weights)} look-ups of constant rows stay operations: they read a row twice, or "
            f"only part of a LUT group or a vector: {names_in_short(weights)}"
        )


def _follows_decode(node: torch.fx.Node) -> bool:
    """Whether a layer is palettized and only this reads its output, so that it could be folded."""
    weight = node.args[1] if len(node.args) > 1 else None
    if not isinstance(weight, torch.fx.Node):
        return False
    weight = weight.args[0] if weight.target is torch.ops.aten.mul.Tensor else weight  # a scale
    decode = torch.ops.dkm.lut_to_dense.default
    return getattr(weight, "target", None) is decode and len(node.users) == 1


def _module(exported: ExportedModel, norm: torch.fx.Node) -> str:
    """The qualified name of a BatchNorm, by that of its running mean."""
    buffers = exported.program.graph_signature.inputs_to_buffers
    return buffers.get(str(norm.args[3]), norm.name).rpartition(".")[0] or norm.name


def _names(exported: ExportedModel) -> dict[str, tuple[str, str]]:
    """Of each palettized weight its name and a MIL identifier, by the placeholder of its indices.

    Identifiers are unique and readable: fc.weight gives fc_weight.
    """
    mil_names: dict[str, str] = {}
    for weight in exported.palettes:
        name = base = value_name(weight)
        number = 1
        while name in mil_names.values():
            number += 1
            name = f"{base}_{number}"
        mil_names[weight] = name
    buffers = exported.program.graph_signature.inputs_to_buffers
    found = ((placeholder, weight_name(buffer)) for placeholder, buffer in buffers.items())
    return {place: (name, mil_names[name]) for place, name in found if name in mil_names}


def _scales(exported: ExportedModel) -> set[str]:
    """The placeholders of all per-channel scales."""
    buffers = exported.program.graph_signature.inputs_to_buffers
    return {p for p, name in buffers.items() if is_scale(name)}


def _open_modes(path: Path) -> None:
    """Let others read the files, which coremltools makes for their owner only."""
    for file in path.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
