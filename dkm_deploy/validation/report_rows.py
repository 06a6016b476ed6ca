"""The rows of a report: each model, each file and what a device gave, against the same task."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from dkm_deploy.conversion.registry import function_reader
from dkm_deploy.errors import DkmError
from dkm_deploy.formats.reader import Reader
from dkm_deploy.model.inputs import Inputs
from dkm_deploy.model.run import Outputs
from dkm_deploy.model.steps import Steps
from dkm_deploy.palette import Palette
from dkm_deploy.parity.figures import OutputJudgement
from dkm_deploy.parity.float16_storage import stores_half
from dkm_deploy.parity.output_errors import Errors
from dkm_deploy.parity.reduced_precision import Arithmetic, arithmetic
from dkm_deploy.parity.repeatability import file_randomness
from dkm_deploy.parity.slice_comparison import OutputJudge
from dkm_deploy.runtimes import (
    NotTakenError,
    Session,
    StatefulSession,
    TellsPrecision,
    WrongLabelError,
    runtime_for,
)
from dkm_deploy.runtimes.run_file import run_file
from dkm_deploy.validation.check import Check, Status
from dkm_deploy.validation.checks.cost import cost_checks
from dkm_deploy.validation.checks.finite_outputs import uncompared_text
from dkm_deploy.validation.checks.float32_parity import with_float32
from dkm_deploy.validation.checks.interface import interface_check
from dkm_deploy.validation.checks.model_noise import judge_of
from dkm_deploy.validation.checks.needed_palettes import needed_palettes
from dkm_deploy.validation.checks.output_checks import (
    answer_checks,
    palettes_check,
    parity_check,
    size_checks,
)
from dkm_deploy.validation.checks.palette_names import by_reference_names
from dkm_deploy.validation.checks.state_steps import over_steps
from dkm_deploy.validation.checks.swapped_outputs import find_swapped_outputs
from dkm_deploy.validation.dense_weights.check import dense_check
from dkm_deploy.validation.golden.bundle import in_a_row
from dkm_deploy.validation.golden.device_outputs import DeviceOutputs
from dkm_deploy.validation.limits import Limits, limits_of
from dkm_deploy.validation.locate.locate import Divergence, describe_divergence, locate
from dkm_deploy.validation.measures.cost import Costs
from dkm_deploy.validation.measures.size import (
    bits_per_weight,
    deflated_bytes,
    ideal_bytes,
    tensor_bytes,
)
from dkm_deploy.validation.report import Model
from dkm_deploy.validation.row_errors import error_line
from dkm_deploy.validation.size_budget import budget_checks
from dkm_deploy.validation.task import (
    FirstOutput,
    Original,
    Task,
    errors_of,
    match_outputs,
    score_first_output,
)

_NO_MODEL = "layers are compared with those of a PyTorch model, which is not given"


def model_row(name: str, model: nn.Module, outputs: Outputs, task: Task) -> Model:
    """The row of a PyTorch model that gave ``outputs``."""
    size = tensor_bytes(model)
    ratio, half_ratio = _ratios(task.original, size)
    found = errors_of(match_outputs(outputs, task.reference), task.reference)
    return _row(
        score_first_output(outputs, task),
        found,
        name=name,
        runtime=f"PyTorch {version('torch')}",
        size_bytes=size,
        size_ratio=ratio,
        half_ratio=half_ratio,
        bits_per_weight=bits_per_weight(model),
    )


def file_row(path: Path, task: Task) -> Model:
    """The row of a converted file. Raises DkmError if it is damaged."""
    reader = function_reader(path, task.function)
    stored = by_reference_names(reader.read_palettes(path), task.frozen)
    ledger = reader.ledger(path)
    ran = _run(path, task.inputs, task.function)
    outputs, found, reason = _compare_outputs(ran.outputs, ran.reason, task)
    before, kinds, size = task.original, ledger.by_kind(), ledger.total_bytes
    weights = sum(palette.size for palette in stored.values())
    ratio, half_ratio = _ratios(before, size)
    weighed = (path, reader, stored)
    parity, divergence = _parity(weighed, ran, (outputs, found, reason), task)
    told, (costs, unmeasured) = (
        score_first_output(outputs if found else None, task),
        _costs(path, task),
    )
    return _row(
        told,
        found,
        name=path.name,
        path=str(path),
        runtime=ran.runtime,
        size_bytes=size,
        size_ratio=ratio,
        half_ratio=half_ratio,
        deflated_bytes=deflated_bytes(ledger),
        ideal_bytes=ideal_bytes(ledger, stored, task.frozen),
        bits_per_weight=8 * (kinds["indices"] + kinds["lut"]) / weights if weights else None,
        divergence=divergence,
        bytes_by_kind={str(kind): part for kind, part in kinds.items()},
        cost=costs,
        checks=(
            palettes_check(task.frozen, stored, ledger, _unused(stored, task)),
            _unless_it_fails("dense", partial(dense_check, path, reader, task.dense, stored)),
            _unless_it_fails(
                "interface",
                partial(interface_check, path, reader, task.interface, ran.outputs, task.reference),
            ),
            parity,
            *answer_checks(told, task.limits, task.undecided),
            *size_checks(ledger, before.tensor_bytes if before else None, task.limits),
            *budget_checks(path, size, task.budget),
            *cost_checks(costs, unmeasured, task.limits),
        ),
    )


def _unused(stored: Collection[str], task: Task) -> Collection[str]:
    """Palettes that a file may lack; they are only looked for if it lacks one."""
    if task.model is None or task.frozen.keys() <= set(stored):
        return ()
    return task.frozen.keys() - needed_palettes(task.model, task.inputs).keys()


def _unless_it_fails(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except DkmError:
        raise  # the file is damaged
    except Exception as error:  # a fault of the comparison is not one of the file
        return Check(name, Status.SKIPPED, f"it failed: {error_line(error)}", blocks=True)


def returned_row(folder: Path, returned: DeviceOutputs, task: Task) -> Model:
    """The row of outputs that a device gave; of the file that it ran nothing else is known."""
    outputs, found, reason = _compare_outputs(*_in_a_row(returned, task), task)
    noise = task.noise.get(Arithmetic("float16", "float16"))
    judge = OutputJudge(task.reference, noise and noise.in_half_sums(), "float16")
    told = score_first_output(outputs if found else None, task)
    own = judge(outputs or {}) if found else {}
    parity = parity_check(found, reason, True, task.limits, own)
    return _row(
        told,
        found,
        name=folder.name,
        path=str(folder),
        runtime=returned.runtime,
        checks=(
            _over_steps(parity, outputs if found else None, (), task, judge),
            *answer_checks(told, task.limits, task.undecided),
            *_unasked_limits(task.limits),
        ),
    )


def _in_a_row(returned: DeviceOutputs, task: Task) -> tuple[Outputs, str]:
    """Outputs as those of the task are, and why there are none if so."""
    steps = len(task.inputs) if isinstance(task.inputs, Steps) else None
    try:
        return in_a_row(returned.outputs, steps), ""
    except DkmError as error:
        return {}, str(error)


def _unasked_limits(limits: Limits) -> list[Check]:
    """Limits on the file itself, about which outputs say nothing."""
    sizes = (limits.max_bytes, limits.max_size_ratio)
    costs = (limits.max_latency_ratio, limits.max_load_ratio, limits.max_peak_ratio)
    reason = "a device gives outputs only; dkm-deploy validate checks the file"
    return [
        Check(name, Status.SKIPPED, reason)
        for name, found in (("size", sizes), ("cost", costs))
        if any(limit is not None for limit in found)
    ]


def _row(told: FirstOutput, found: Mapping[str, Errors], **about: Any) -> Model:
    """A row with what its outputs say; ``about`` is the rest."""
    answers = told.answers
    return Model(
        metric=told.metric,
        metric_loss=told.loss,
        agreement=answers.agreement,
        top5_overlap=answers.top5_overlap,
        flip_count=answers.flip_count,
        flips=answers.flips,
        errors=found,
        **about,
    )


def _compare_outputs(
    outputs: Outputs | None, reason: str, task: Task
) -> tuple[Outputs | None, dict[str, Errors], str]:
    """Outputs under the reference's names, their errors, and the reason if there are none."""
    if outputs is None or reason:
        return outputs, {}, reason
    try:
        outputs = match_outputs(outputs, task.reference)
        return outputs, errors_of(outputs, task.reference), reason
    except DkmError as error:
        return outputs, {}, str(error)


def _over_steps(
    parity: Check,
    outputs: Outputs | None,
    states: Collection[str],
    task: Task,
    judge: OutputJudge | None,
) -> Check:
    if not outputs or judge is None:
        return parity

    def misses(some: Outputs) -> bool:
        found, own = errors_of(some, task.reference), judge(some)
        return parity_check(found, "", True, task.limits, own).status == Status.FAILED

    return over_steps(parity, task.inputs, states, (outputs, judge.expected), misses)


def _parity(
    file: tuple[Path, Reader, Mapping[str, Palette]],
    ran: _Ran,
    compared: tuple[Outputs | None, Mapping[str, Errors], str],
    task: Task,
) -> tuple[Check, Divergence | None]:
    """The parity check of a file with its reader and palettes, and where it goes wrong."""
    path = file[0]
    if task.random:
        return Check("parity", Status.SKIPPED, task.random, blocks=True), None
    outputs, found, reason = compared
    judge: OutputJudge | None = None
    own: Mapping[str, OutputJudgement] = {}
    try:
        half = stores_half(*file)
        numbers = arithmetic(half if ran.half is None else ran.half, half)
        half_sums = ran.native and numbers.compute == "float16"
        if found and outputs:
            judge = judge_of(path, numbers, outputs, task, half_sums=half_sums)
            own = judge(outputs)
    except Exception as error:  # of the user's own model in emulated arithmetic
        reason = f"the model's own noise cannot be measured: {error_line(error)}"
        return Check("parity", Status.SKIPPED, reason, blocks=True), None
    parity = parity_check(found, reason, outputs is not None, task.limits, own)
    parity = replace(parity, blocks=parity.blocks or ran.refused)
    states = ran.session.states if isinstance(ran.session, StatefulSession) else ()
    parity = _over_steps(parity, outputs, states, task, judge)
    hidden = parity.status == Status.PASSED  # by rounding: where it goes wrong is not seen either
    if numbers.compute == "float16" and parity.status != Status.SKIPPED:
        parity = with_float32(parity, path, task)
    if parity.status == Status.PASSED:
        return replace(parity, reason=parity.reason + uncompared_text(task.reference)), None
    if hidden:
        return parity, None
    chance = ""
    if parity.status == Status.FAILED and ran.session is not None:
        chance = file_randomness(ran.session, task.inputs)
    if chance:
        return replace(parity, reason=f"{chance}; {parity.reason}"), None
    return _locate_fault(parity, path, outputs, task, own)


def _locate_fault(
    parity: Check,
    path: Path,
    outputs: Outputs | None,
    task: Task,
    own: Mapping[str, OutputJudgement],
) -> tuple[Check, Divergence | None]:
    """The parity check with where a file first goes wrong, if it does and that can be found."""
    if parity.status != Status.FAILED or not outputs:
        return parity, None
    wanted = {name: _relative_limit(name, task.limits, own) for name in task.reference}
    exchanged = find_swapped_outputs(outputs, task.reference, wanted)
    if exchanged:
        return replace(parity, reason=f"{parity.reason}; {exchanged}"), None
    if task.model is None:
        return replace(parity, reason=f"{parity.reason}; not located: {_NO_MODEL}"), None
    limit = wanted[next(iter(task.reference))]
    try:
        both = (outputs, task.reference)
        found = locate(path, task.model, task.inputs, both, limit, function=task.function)
    except Exception as error:  # whatever a runtime's own code raises: the miss stands
        reason = f"{parity.reason}; not located: {error_line(error)}"
        return replace(parity, reason=reason), None
    return replace(parity, reason=f"{parity.reason}; {describe_divergence(found)}"), found


def _relative_limit(name: str, limits: Limits, own: Mapping[str, OutputJudgement]) -> float:
    asked = limits_of(name, limits).max_relative_error
    if asked is not None:
        return asked
    return own[name].relative_limit if name in own else 0.0


@dataclass(frozen=True)
class _Ran:
    """What came of running a file.

    Attributes:
        outputs: None if it was not run; empty if it was, and what it gave cannot be right.
        runtime: the name of what runs it here.
        reason: why there are no outputs.
        refused: it is the runtime that did not load or run it.
        half: whether it computes in float16; None if the session does not tell.
        session: the loaded file, if it ran.
        native: whether it is what an app runs, which may sum in float16.
    """

    outputs: Outputs | None
    runtime: str | None
    reason: str = ""
    refused: bool = False
    half: bool | None = None
    session: Session | None = None
    native: bool = False


def _run(path: Path, inputs: Inputs | Steps, function: str | None = None) -> _Ran:
    try:
        runtime = runtime_for(path, function)
    except DkmError as error:
        return _Ran(None, None, str(error))
    try:
        session = runtime.load(path)
        half = session.computes_half if isinstance(session, TellsPrecision) else None
        outputs = run_file(session, inputs)
        native = runtime.native
        return _Ran(outputs, runtime.name, half=half, session=session, native=native)
    except NotTakenError as error:
        return _Ran(None, runtime.name, str(error))
    except WrongLabelError as error:
        return _Ran({}, runtime.name, str(error))
    except Exception as error:  # whatever a runtime's own code raises, one file must not end all
        return _Ran(None, runtime.name, f"{runtime.name}: {error_line(error)}", refused=True)


def _costs(path: Path, task: Task) -> tuple[Costs | None, str]:
    """What the file costs, or why that is not known; neither where nobody asked."""
    if task.meter is None:
        return None, ""
    try:
        return task.meter.measure(path), ""
    except Exception as error:  # as above
        return None, error_line(error)


def _ratios(original: Original | None, size: int) -> tuple[float | None, float | None]:
    """Bytes of the original, and of its fp16 half, over ``size``; None without an original."""
    if original is None or not original.tensor_bytes:
        return None, None
    half = original.half_bytes
    return original.tensor_bytes / size, None if half is None else half / size
