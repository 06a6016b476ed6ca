"""Convert an exported program by coremltools, in more calls and types where it fails at first."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch.export import ExportedProgram

from converters.coreml.decompositions.complex_pairs import has_complex
from converters.coreml.decompositions.decompose import decompose, has_decomposition
from converters.coreml.decompositions.small_integers import widen_small_integers
from converters.coreml.deployment import generation
from converters.coreml.float16_program import Float16Choice, kept_constants
from converters.coreml.front_end_calls import rename_text_nodes, with_defaults
from converters.coreml.interface import classifier, inputs, outputs
from converters.coreml.lowering.call_keywords import calls
from converters.coreml.lowering.lower import Decodes, known_calls, register_lowering
from converters.coreml.lowering.output_marks import mark_outputs
from converters.coreml.options import Options
from converters.coreml.passes.compact_program import small_tensors_inside
from converters.coreml.passes.constant_folding import right_constants
from converters.coreml.passes.graph_passes import exact_constants, kept_sparse_palettes, passes
from converters.coreml.silence import silent
from dkm_deploy.conversion.exported import ExportedModel
from dkm_deploy.conversion.failed_operation import failed_call, failure_place
from dkm_deploy.errors import DkmError, reason_of
from dkm_deploy.formats.mlpackage.proto import coremltools

ct = coremltools()

Converted = tuple[Any, Decodes, Float16Choice | None]
"""The model as coremltools has it, what lowered its palettes, and what made it float16, if so."""

_FLOAT32 = ct.precision.FLOAT32
RECURRENT_FLOAT16 = 17  # the generation of Core ML whose lstm, gru and rnn may be in float16
_ATTEMPTS = 16
_OF_TYPES = ("data type", "dtype", "type domain")


@dataclass(frozen=True)
class _Attempt:
    """How a program is given to coremltools.

    Attributes:
        exact_types: whether each value is made of PyTorch's type, where coremltools gives another.
        apart: calls to be taken apart though coremltools knows them, as it fails on some.
        in_pairs: whether complex values are given as pairs of real ones.
    """

    exact_types: bool = False
    apart: frozenset[Any] = frozenset()
    in_pairs: bool = False


@dataclass(frozen=True)
class _Failure:
    """An attempt that failed.

    Attributes:
        reason: what is told.
        call: on which it failed, if that is known.
        of_types: whether coremltools found values of other types than it takes.
        of_complex: whether the program has complex values.
    """

    reason: str
    call: Any
    of_types: bool
    of_complex: bool


def convert_program(
    exported: ExportedModel,
    options: Options,
    decodes: Callable[[ExportedProgram], Decodes],
    in_float32: frozenset[str] = frozenset(),
) -> Converted:
    """Convert a program, first as it is, then with what coremltools fails on in other terms.

    So a program that converts as it is has nothing added.

    Args:
        exported: the frozen model.
        options: of the user.
        decodes: what lowers the palettes of a program, which is that of ``exported`` taken apart.
        in_float32: names of values, or of the operations that make them, which float16 cannot hold:
            what makes or takes one stays float32.

    Raises:
        DkmError: coremltools cannot convert it, with its reason, the call and the layer.
    """
    attempt: _Attempt | None = _Attempt()
    failures: list[_Failure] = []
    while attempt is not None:
        result = _try(exported, options, decodes, attempt, in_float32)
        if not isinstance(result, _Failure):
            return result
        failures.append(result)
        attempt = _next(attempt, result) if len(failures) < _ATTEMPTS else None
    raise DkmError(_most_telling(failures, exported.program).reason)


def _try(
    exported: ExportedModel,
    options: Options,
    decodes: Callable[[ExportedProgram], Decodes],
    attempt: _Attempt,
    in_float32: frozenset[str],
) -> Converted | _Failure:
    given, wanted = inputs(exported, options), outputs(exported, options)
    program = exported.program
    try:
        with silent():
            program = decompose(program, known_calls(), attempt.apart, in_pairs=attempt.in_pairs)
            widen_small_integers(program, options.images)
            program = mark_outputs(rename_text_nodes(with_defaults(program)))
            made = decodes(program)
            narrowing = _float16_choice(options, in_float32)
            lowering = register_lowering(made, calls(program), exact_types=attempt.exact_types)
            with (
                lowering,
                exact_constants(),
                kept_constants(),
                right_constants(),
                kept_sparse_palettes(),
                small_tensors_inside(),
            ):
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
            return model, made, narrowing
    except Exception as error:  # coremltools raises many kinds, each for the user's model
        failure = _failure(error, program)
        with silent():  # its frames hold temporary folders, which warn when they go
            traceback.clear_frames(error.__traceback__)
        if isinstance(error, DkmError):  # from our lowering
            raise
        return failure


def _failure(error: Exception, program: ExportedProgram) -> _Failure:
    call, about = failed_call(error, program), str(error)
    reason = f"coremltools cannot convert the model: {reason_of(error)}"
    return _Failure(
        reason + failure_place(error, program),
        None if call is None else call.target,
        any(word in about for word in _OF_TYPES),
        has_complex(program),
    )


def _next(attempt: _Attempt, failure: _Failure) -> _Attempt | None:
    """What may do better, if anything."""
    if failure.of_complex and not attempt.in_pairs:
        return replace(attempt, in_pairs=True)
    if failure.of_types and not attempt.exact_types:
        return replace(attempt, exact_types=True)
    if failure.call in attempt.apart or not has_decomposition(failure.call):
        return None
    return replace(attempt, apart=attempt.apart | {failure.call})


def _most_telling(failures: list[_Failure], program: ExportedProgram) -> _Failure:
    """The last failure of a call that the model makes; others come from taking one apart."""
    made = {node.target for node in program.graph.nodes}
    own = [failure for failure in failures if failure.call in made]
    return own[-1] if own else failures[0]


def _float16_choice(options: Options, in_float32: frozenset[str]) -> Float16Choice | None:
    """What is made float16: all but the weights of recurrent layers where those lack it."""
    if options.compute_precision == "float32":
        return None
    lack = generation(options.minimum_deployment_target) < RECURRENT_FLOAT16
    return Float16Choice(lambda operation: lack and _feeds_recurrent(operation), in_float32)


def _feeds_recurrent(operation: Any) -> bool:
    if operation.op_type != "constexpr_lut_to_dense":
        return False
    return any(user.op_type in ("lstm", "gru", "rnn") for user in operation.outputs[0].child_ops)
