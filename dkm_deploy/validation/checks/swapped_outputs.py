"""Which outputs of a file hold each other's values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from dkm_deploy.model.run import Outputs
from dkm_deploy.parity.output_errors import errors


def find_swapped_outputs(
    outputs: Outputs, reference: Outputs, wanted: Mapping[str, float]
) -> str | None:
    """Outputs that are off, but within the limits of another one, in words; None without any.

    Args:
        outputs: of the file, by the reference's names.
        reference: what they are compared with.
        wanted: what the relative error of each may be.
    """
    wrong = [
        name
        for name in reference
        if name in outputs and not _is_near(outputs[name], reference[name], wanted[name])
    ]
    found = {
        name: other
        for name in wrong
        for other in wrong
        if other != name and _is_near(outputs[name], reference[other], wanted[other])
    }
    if not found:
        return None
    held = ", ".join(f"{name!r} has the values of {other!r}" for name, other in found.items())
    return f"outputs are swapped: {held}"


def _is_near(actual: NDArray[Any], expected: NDArray[Any], limit: float) -> bool:
    if actual.shape != expected.shape or not actual.size:
        return False
    found = errors(actual, expected)
    return bool(found.compared) and not found.nonfinite and found.relative <= limit
