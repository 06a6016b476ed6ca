"""Run a file that was just written on the inputs that it was made with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dkm_deploy.errors import DkmError, reason_of
from dkm_deploy.model.inputs import Inputs
from dkm_deploy.model.run import Outputs, run_model
from dkm_deploy.model.steps import Steps
from dkm_deploy.parity.figures import OutputJudgement
from dkm_deploy.parity.reduced_precision import Arithmetic, arithmetic
from dkm_deploy.parity.repeatability import randomness
from dkm_deploy.parity.rounding_noise import DRAWS, measure_noise
from dkm_deploy.parity.slice_comparison import is_close, judge_outputs
from dkm_deploy.parity.stored_reference import stored_model, unless_exact
from dkm_deploy.runtimes import Session, TellsPrecision, float32_runtime, runtime_for
from dkm_deploy.runtimes.run_file import run_file

_DRAWS = 4  # half of what a validation takes, which is asked where these find fault
_NOT_TRIED = "not tried: "


class OverflowNote(str):
    """A note on a file that is wrong, for numbers overflow in it."""

    __slots__ = ()


class DiffersError(DkmError):
    """A file that computes something else than the model it was made from."""


def trial_run(
    path: Path, model: nn.Module, inputs: Inputs | Steps, *, half_weights: bool
) -> str | None:
    """Compare what a file computes with the model, under the limits of a validation.

    Args:
        path: the file.
        model: that it was made from; it is not changed.
        inputs: that it was made with; one step for a file that keeps state.
        half_weights: whether the file stores weights in float16.

    Returns:
        None if it computes the same; else what to know: why it could not be tried, or that the
        model overflows in the numbers of the file.

    Raises:
        DiffersError: an output is further off than the model's own noise allows.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            runtime = runtime_for(path)
            session = runtime.load(path)
            exactly = run_model(model, inputs)
        except Exception as error:  # whatever a runtime's own code raises: the file is written
            return _NOT_TRIED + reason_of(error)
        half = session.computes_half if isinstance(session, TellsPrecision) else half_weights
        numbers = arithmetic(half, half_weights)
        stored = stored_model(model, numbers.weights, path)
        rounded = exactly if stored is model else run_model(stored, inputs)
        made_from = _Source(model, stored, inputs, exactly, rounded)
        if half and (exact := float32_runtime(path)):
            # First, for rounding hides small faults, and what overflows tells of no others.
            in_float32 = replace(numbers, compute="float32")
            found = _compare_in(partial(exact.load_in_float32, path), in_float32, made_from)
            if found:
                return found
        half_sums = half and runtime.native
        return _compare_in(lambda: session, numbers, made_from, half_sums=half_sums)


@dataclass(frozen=True)
class _Source:
    """What a file was made from.

    Attributes:
        model: as it was given.
        stored: the model with weights as the file has them.
        inputs: of both.
        exactly: outputs of the model as it was given.
        rounded: outputs of the other.
    """

    model: nn.Module
    stored: nn.Module
    inputs: Inputs | Steps
    exactly: Outputs
    rounded: Outputs


def _compare_in(
    load: Callable[[], Session],
    numbers: Arithmetic,
    made_from: _Source,
    *,
    half_sums: bool = False,
) -> str | None:
    """As :func:`trial_run`, in one arithmetic."""
    try:
        outputs = _match_outputs(run_file(load(), made_from.inputs), made_from.exactly)
    except DiffersError:
        raise
    except Exception as error:  # as above
        return _NOT_TRIED + reason_of(error)
    expected = unless_exact(outputs, made_from.exactly, made_from.rounded)
    if all(is_close(outputs[name], expected[name], numbers.compute) for name in expected):
        return None
    random = randomness("the model", made_from.model, made_from.inputs)
    if random:
        return _NOT_TRIED + random

    def told(draws: int) -> str | None:
        noise = measure_noise(made_from.stored, made_from.inputs, numbers, draws)
        if half_sums:
            noise = noise.in_half_sums()
        return _verdict_of(
            outputs, expected, judge_outputs(outputs, expected, noise, numbers.coarsest)
        )

    try:
        return told(_DRAWS)
    except DiffersError:  # few draws may miss what a gain or a mean owes to one rounding
        return told(DRAWS)


def _verdict_of(
    outputs: Outputs, expected: Outputs, found: dict[str, OutputJudgement]
) -> str | None:
    for name, own in found.items():
        lost = int(np.count_nonzero(np.isfinite(expected[name]) & ~np.isfinite(outputs[name])))
        off = bool(own.figures) and not own.figures[0].ratio <= 1
        if own.overflown and (lost or off):
            return OverflowNote(
                f"output {name!r} is wrong: values overflow in float16, in which the file "
                "computes; compute_precision='float32' has room for them"
            )
        if lost:
            raise DiffersError(f"output {name!r} has {lost} NaN or infinite values")
        if off:
            raise DiffersError(f"output {name!r}: {own.describe(own.figures[0])}")
    return None


def _match_outputs(outputs: Outputs, expected: Outputs) -> Outputs:
    """Outputs by the model's names. Raises DiffersError if they cannot be those of the model."""
    if len(outputs) != len(expected):
        raise DiffersError(f"it gives {len(outputs)} outputs, the model {len(expected)}")
    if set(outputs) != set(expected):
        outputs = dict(zip(expected, outputs.values(), strict=True))
    for name, array in expected.items():
        if outputs[name].shape != array.shape:
            shape = outputs[name].shape
            raise DiffersError(f"output {name!r} has shape {shape}, the model gives {array.shape}")
    return {name: outputs[name] for name in expected}
