"""What parity says of a file that keeps state: over which steps, and at which it parts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dkm_deploy.model.inputs import Inputs
from dkm_deploy.model.run import Outputs
from dkm_deploy.model.steps import Steps
from dkm_deploy.validation.check import Check, Status

_NAMED = 5
_REMEDY = "give several, inputs=dkm.Steps([..])"


def over_steps(
    parity: Check,
    inputs: Inputs | Steps,
    states: Collection[str],
    outputs: tuple[Mapping[str, NDArray[Any]], Mapping[str, NDArray[Any]]],
    misses: Callable[[Outputs], bool],
) -> Check:
    """The check of parity with what it says of steps.

    A file that keeps state and was run on first steps alone has proven nothing: its check is "not
    run", and blocks the verdict.

    Args:
        parity: of all outputs together.
        inputs: what the file was run on.
        states: names of what it keeps from run to run.
        outputs: of the file, and what they must be.
        misses: whether such outputs are outside the limits.
    """
    if isinstance(inputs, Steps) and len(inputs) > 1:
        count = len(inputs)
        if parity.status == Status.PASSED:
            return replace(parity, reason=f"{parity.reason}; over {count} steps")
        if parity.status != Status.FAILED:
            return parity
        off = (n for n in range(1, count + 1) if misses(_until(n, count, *outputs)))
        found = f"; first error at step {place} of {count}" if (place := next(off, None)) else ""
        return replace(parity, reason=parity.reason + found)
    if parity.status == Status.PASSED and states:
        names = list(states)
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        kept = ", ".join(names[:_NAMED]) + more
        reason = f"only the first step was run ({parity.reason}), and the file keeps {kept}"
        return Check("parity", Status.SKIPPED, f"{reason}; {_REMEDY}", blocks=True)
    return parity


def _until(
    place: int,
    count: int,
    outputs: Mapping[str, NDArray[Any]],
    expected: Mapping[str, NDArray[Any]],
) -> Outputs:
    """Outputs of the first ``place`` of ``count`` steps, with those that must be after them."""
    found = {}
    for name, array in outputs.items():
        stop = place * len(array) // count
        found[name] = np.concatenate([array[:stop], expected[name][stop:]])
    return found
