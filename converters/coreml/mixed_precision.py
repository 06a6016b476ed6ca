"""Which operations of a float16 program must be float32, found by running it in float32."""

from __future__ import annotations

from pathlib import Path

from dkm_deploy.conversion.exported import ExportedModel
from dkm_deploy.errors import DkmError
from dkm_deploy.runtimes.mlprogram.evaluator import MLProgramEvaluator
from dkm_deploy.runtimes.run_file import run_file


def beyond_float16(path: Path, exported: ExportedModel) -> frozenset[str]:
    """Names of what makes values that float16 cannot hold: operations, constants and inputs.

    Args:
        path: a float32 program.
        exported: whose inputs it is run on.

    Returns:
        Nothing if there are none, or the program cannot be run here.
    """
    try:
        session = MLProgramEvaluator(path, numerics="range")
        run_file(session, exported.inputs)
    except DkmError:
        return frozenset()
    return frozenset(overflow.operation for overflow in session.overflows)
