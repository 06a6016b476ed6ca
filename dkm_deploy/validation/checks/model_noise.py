"""Limits for one file: the noise that the model itself has in the file's arithmetic."""

from __future__ import annotations

from pathlib import Path

from dkm_deploy.model.run import Outputs, run_model
from dkm_deploy.parity.reduced_precision import Arithmetic
from dkm_deploy.parity.rounding_noise import DRAWS, measure_noise
from dkm_deploy.parity.slice_comparison import OutputJudge
from dkm_deploy.parity.stored_reference import stored_model, unless_exact
from dkm_deploy.validation.task import Task


def judge_of(
    path: Path,
    arithmetic: Arithmetic,
    outputs: Outputs,
    task: Task,
    *,
    half_sums: bool = False,
    draws: int = DRAWS,
) -> OutputJudge:
    """A judge of a file's outputs, by noise that is measured with the weights as the file has them.

    Args:
        path: the file.
        arithmetic: in which it was run.
        outputs: what it gave, by the reference's names.
        task: what it is compared with.
        half_sums: whether sums are float16 too.
        draws: how often the model is run to measure noise.
    """
    expected, noise = task.reference, task.noise.get(arithmetic)
    if task.model is not None:
        model = stored_model(task.model, arithmetic.weights, path)
        if model is not task.model:
            expected = unless_exact(outputs, expected, run_model(model, task.inputs))
        noise = measure_noise(model, task.inputs, arithmetic, draws)
    if noise is not None and half_sums:
        noise = noise.in_half_sums()
    return OutputJudge(expected, noise, arithmetic.coarsest)
