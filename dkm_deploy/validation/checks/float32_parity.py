"""A float16 file computed in float32 as well: rounding hides small faults of its program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from dkm_deploy.parity.figures import OutputJudgement
from dkm_deploy.parity.reduced_precision import Arithmetic
from dkm_deploy.parity.repeatability import file_randomness
from dkm_deploy.parity.rounding_noise import DRAWS
from dkm_deploy.runtimes import Session, float32_runtime
from dkm_deploy.runtimes.run_file import run_file
from dkm_deploy.validation.check import Check, Status
from dkm_deploy.validation.checks.model_noise import judge_of
from dkm_deploy.validation.checks.output_checks import parity_check
from dkm_deploy.validation.row_errors import error_line
from dkm_deploy.validation.task import Task, errors_of, match_outputs

_DRAWS = 4
_STORED_HALF = Arithmetic("float32", "float16")
_REMEDY = "computed in float32 it passes: compute_precision='float32' keeps what float16 loses"


def with_float32(parity: Check, path: Path, task: Task) -> Check:
    """The parity check of a file that computes in float16, and what the same says in float32.

    Weights stay as the file stores them. What is off in float32 is a fault of the program however
    small it is beside the noise of float16, such as another epsilon or another kind of GELU.

    Args:
        parity: passed or failed in float16.
        path: the file.
        task: what it is compared with.
    """
    runtime = float32_runtime(path, task.function)
    if runtime is None:
        return parity
    try:
        session = runtime.load_in_float32(path)
        exact, used = _exact(session, path, task)
    except Exception as error:  # whatever a runtime's own code raises: float16 has its verdict
        reason = f"{parity.reason}; not computed in float32: {error_line(error)}"
        return replace(parity, reason=reason)
    if parity.status == exact.status == Status.PASSED:
        return replace(parity, reason=f"{parity.reason}; computed in float32, {used}")
    if exact.status == Status.PASSED:
        return replace(parity, reason=f"{parity.reason}; {_REMEDY}")
    if parity.status == Status.PASSED and exact.status == Status.FAILED:
        chance = file_randomness(session, task.inputs)
        found = f"{chance}; {exact.reason}" if chance else exact.reason
        return replace(exact, reason=f"float16 hides it, but computed in float32: {found}")
    return parity


def _exact(session: Session, path: Path, task: Task) -> tuple[Check, str]:
    """The check in float32, and how much of its limits the file takes, in words."""
    outputs = match_outputs(run_file(session, task.inputs), task.reference)
    found = errors_of(outputs, task.reference)
    for draws in (_DRAWS, DRAWS):  # few do for most right files, and none is missed by few
        own = judge_of(path, _STORED_HALF, outputs, task, draws=draws)(outputs)
        check = parity_check(found, "", True, task.limits, own)
        if check.status == Status.PASSED:
            break
    return check, _used_limit(own)


def _used_limit(own: Mapping[str, OutputJudgement]) -> str:
    worst = max(figure.ratio for judged in own.values() for figure in judged.figures)
    return f"{100 * worst:.0f} % of its limits"
