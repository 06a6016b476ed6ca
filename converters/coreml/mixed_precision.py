"""Which operations of a float16 program must be float32, found by running it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dkm_deploy.conversion.exported import ExportedModel
from dkm_deploy.errors import DkmError
from dkm_deploy.model.run import Outputs
from dkm_deploy.runtimes.mlprogram.evaluator import MLProgramEvaluator
from dkm_deploy.runtimes.mlprogram.numerics import Numerics
from dkm_deploy.runtimes.run_file import run_file

_APART = 1e-2  # relative error of outputs from which an overflow has done harm


def overflowing(
    half: Path, in_float32: Callable[[], Path], exported: ExportedModel, *, clips: bool
) -> frozenset[str]:
    """Names of what makes values that a float16 program cannot hold: operations and inputs.

    A program that cannot be run here is taken for right: whoever runs it next says what is wrong.

    Args:
        half: the float16 program.
        in_float32: gives the same in float32; called if something overflows.
        exported: whose inputs both are run on.
        clips: whether constants in ``half`` were clipped to float16, such as the fill of a mask:
            then it must also be right if the rest of it is computed in float32, for else it is
            right by chance.

    Returns:
        Nothing if the outputs are those of float32 but for rounding.
    """
    try:
        outputs, found = _run(half, exported, "declared")
        finite = all(np.isfinite(array).all() for array in outputs.values())
        if finite and not found and not clips:
            return frozenset()
        exact, beyond = _run(in_float32(), exported, "range")
        looks = [outputs, _run(half, exported, "fp32")[0]] if clips else [outputs]
    except DkmError:
        return frozenset()
    harmed = any(_are_apart(array, exact[name]) for look in looks for name, array in look.items())
    return beyond if harmed else frozenset()


def _run(path: Path, exported: ExportedModel, numerics: Numerics) -> tuple[Outputs, frozenset[str]]:
    """Outputs, and the names of what overflows."""
    session = MLProgramEvaluator(path, numerics=numerics)
    outputs = run_file(session, exported.inputs)
    return outputs, frozenset(overflow.operation for overflow in session.overflows)


def _are_apart(half: NDArray[Any], exact: NDArray[Any]) -> bool:
    if not np.issubdtype(exact.dtype, np.floating):
        return not np.array_equal(half, exact)
    finite = np.isfinite(exact)
    if not np.array_equal(np.isfinite(half), finite):
        return True
    wide = exact[finite].astype(np.float64)
    gap = half[finite].astype(np.float64) - wide
    return bool(np.linalg.norm(gap) > _APART * np.linalg.norm(wide))
