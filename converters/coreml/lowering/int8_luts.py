"""LUTs as 8-bit integers and one step, where their products are the very same values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dkm_deploy.clustering.quantizers.int8_lut import step_of
from dkm_deploy.errors import DkmError

_SMALLEST = np.finfo(np.float16).smallest_normal


def as_int8(
    lut: NDArray[np.floating], dtype: str, of: NDArray[np.floating] | None = None
) -> tuple[NDArray[np.int8], np.floating[Any]]:
    """Integers, and the step that each of them is multiplied with.

    Args:
        lut: of any shape.
        of: the LUTs whose step it is, if ``lut`` is some of these.
        dtype: "float16" or "float32": of the step and of the products in the file.

    Returns:
        Integers of ``lut``'s shape, -127 to 127, and a step in ``dtype``. Their products, rounded
        to ``dtype`` once, are the bits of ``lut`` in ``dtype``.

    Raises:
        DkmError: there are no such integers.
    """
    wanted = lut.astype(dtype).tobytes()
    for step in _steps(lut if of is None else of, dtype):
        codes = np.rint(lut.astype(np.float32) / np.float32(step)).clip(-127, 127).astype(np.int8)
        made = (codes.astype(np.float32) * np.float32(step)).astype(dtype)
        if made.tobytes() == wanted:
            return codes, step
    raise DkmError(
        f"lut_dtype='int8' needs a LUT of whole multiples of one {dtype} step; "
        "convert dkm.quantize_luts(frozen)"
    )


def _steps(lut: NDArray[np.floating], dtype: str) -> Iterator[np.floating[Any]]:
    """The steps that may have made a LUT: its largest entry, rounded, is 127 of them."""
    step = step_of(lut)
    if dtype == "float32":
        yield step
        return
    half = np.float16(step)
    if half < _SMALLEST:  # a device may take such numbers for 0
        raise DkmError(
            f"lut_dtype='int8' needs a step of {step:.2g}, which is too small for float16; "
            'convert with compute_precision="float32"'
        )
    yield from (half, np.nextafter(half, np.float16(0)), np.nextafter(half, np.float16(np.inf)))
