"""Write a Core ML package: coremltools lowers the program, we lower the palettes."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from converters.coreml.decompositions.decompose import decompose
from converters.coreml.deployment import generation, stored_bits
from converters.coreml.float16_program import Float16Choice
from converters.coreml.graph_passes import exact_constants, passes
from converters.coreml.interface import classifier, inputs, outputs
from converters.coreml.lowering.broadcast_sums import sums
from converters.coreml.lowering.call_keywords import calls
from converters.coreml.lowering.lower import Decodes, known_calls, register_lowering
from converters.coreml.lowering.output_marks import mark_outputs
from converters.coreml.metadata import describe
from converters.coreml.options import Options
from converters.storage import check_float16, names_in_short, widened_notes
from dkm_deploy._support.silence import quiet
from dkm_deploy.conversion.exported import ExportedModel
from dkm_deploy.conversion.failed_operation import failure_place
from dkm_deploy.errors import DkmError, reason_of
from dkm_deploy.formats.mlpackage.proto import coremltools
from dkm_deploy.model.palettized import is_scale, weight_name

ct = coremltools()

_FLOAT32 = ct.precision.FLOAT32
_RECURRENT_FLOAT16 = 17  # the generation of Core ML whose lstm, gru and rnn may be in float16

_aten = torch.ops.aten
_RECURRENT = (_aten.lstm.input, _aten.rnn_tanh.input, _aten.rnn_relu.input)


def write(exported: ExportedModel, path: Path, options: Options) -> tuple[str, ...]:
    """See :meth:`converters.coreml.CoreMLTarget.write`."""
    if options.compute_precision == "float16":
        check_float16(exported.palettes)
    model, decodes, narrowed = _convert_program(exported, options)
    describe(model, exported, options, decodes)
    # With its program at hand coremltools adds a debug map, and fails to where there are loops.
    model._mil_program = None
    with _silent():
        model.save(str(path))
    _open_modes(path)
    return (*_notes(exported, options), *_lookups(decodes.lookups), *narrowed)


def _convert_program(
    exported: ExportedModel, options: Options
) -> tuple[Any, Decodes, tuple[str, ...]]:
    """The model as coremltools has it, and notes. Raises DkmError if it cannot convert it."""
    given, wanted = inputs(exported, options), outputs(exported, options)
    program = exported.program
    try:
        with _silent():
            program = decompose(program, known_calls())
            program = mark_outputs(_rename_text_nodes(_with_defaults(program)))
            decodes = _decodes(exported, program, options)
            narrowing = _float16_choice(options)
            with register_lowering(decodes, calls(program)), exact_constants():
                model = ct.convert(
                    program,
                    inputs=given,
                    outputs=wanted,
                    classifier_config=classifier(options),
                    minimum_deployment_target=getattr(ct.target, options.minimum_deployment_target),
                    compute_precision=narrowing.precision() if narrowing else _FLOAT32,
                    pass_pipeline=passes(),
                    skip_model_load=True,
                )
            return model, decodes, tuple(narrowing.notes() if narrowing else ())
    except Exception as error:  # coremltools raises many kinds, each for the user's model
        reason = reason_of(error) + failure_place(error, program)
        with _silent():  # its frames hold temporary folders, which warn when they go
            traceback.clear_frames(error.__traceback__)
        if isinstance(error, DkmError):  # from our lowering
            raise
        raise DkmError(f"coremltools cannot convert the model: {reason}") from error


def _decodes(exported: ExportedModel, program: ExportedProgram, options: Options) -> Decodes:
    """What lowers the palettes of ``program``, which is ``exported`` taken apart further."""
    return Decodes(
        _names(exported), _scales(exported), _float32(exported, options), sums(program), options
    )


def _float16_choice(options: Options) -> Float16Choice | None:
    """What is made float16: all but the weights of recurrent layers where those lack it."""
    if options.compute_precision == "float32":
        return None
    lack = generation(options.minimum_deployment_target) < _RECURRENT_FLOAT16
    return Float16Choice(lambda operation: lack and _feeds_recurrent(operation))


def _feeds_recurrent(operation: Any) -> bool:
    if operation.op_type != "constexpr_lut_to_dense":
        return False
    return any(user.op_type in ("lstm", "gru", "rnn") for user in operation.outputs[0].child_ops)


def _float32(exported: ExportedModel, options: Options) -> set[str]:
    """Names of the palettes that a float16 program holds in float32."""
    if generation(options.minimum_deployment_target) >= _RECURRENT_FLOAT16:
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


def _with_defaults(program: ExportedProgram) -> ExportedProgram:
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


def _rename_text_nodes(program: ExportedProgram) -> ExportedProgram:
    """Rename nodes that go by a text argument, such as ``rounding_mode="floor"``, in place.

    The torch front end would give the value of the node for the text.
    """
    nodes = list(program.graph.nodes)
    texts = {a for node in nodes for a in (*node.args, *node.kwargs.values()) if isinstance(a, str)}
    for node in nodes:
        if node.op == "call_function" and node.name in texts:
            node._rename(f"{node.name}_value")
    return program


def _names(exported: ExportedModel) -> dict[str, tuple[str, str]]:
    """Of each palettized weight its name and a MIL identifier, by the placeholder of its indices.

    Identifiers are unique and readable: fc.weight gives fc_weight.
    """
    mil_names: dict[str, str] = {}
    for weight in exported.palettes:
        name = base = re.sub(r"\W", "_", f"w_{weight}" if weight[0].isdigit() else weight)
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


@contextmanager
def _silent() -> Iterator[None]:
    """Keep coremltools' warnings, log lines and progress bars off the user's terminal."""
    import tqdm  # type: ignore[import-untyped]  # coremltools draws its bars with it

    original = tqdm.tqdm.__init__

    def disabled(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **{**kwargs, "disable": True})

    tqdm.tqdm.__init__ = disabled
    try:
        with quiet():
            yield
    finally:
        tqdm.tqdm.__init__ = original
