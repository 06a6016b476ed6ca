"""coremltools' graph passes, held to change nothing but rounding."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
from coremltools.converters.mil.mil.passes.defs.cleanup import const_deduplication

from dkm_deploy.formats.mlpackage.proto import coremltools

_DEFS = "coremltools.converters.mil.mil.passes.defs"
# Both fuse operations where a constant is within 0.001 to 0.01 of what the fused one stands for.
_FUSIONS = (f"{_DEFS}.optimize_activation", f"{_DEFS}.cleanup.fuse_reduce_mean")
_SHORT = {0.79788: math.sqrt(2 / math.pi)}  # as coremltools writes it


def passes() -> Any:
    """Those of coremltools, less the one that puts an 8-bit LUT's scale behind the look-up."""
    found = coremltools().PassPipeline.DEFAULT
    found.remove_passes({"common::canonicalize_quantized_lut_pattern"})
    return found


@contextmanager
def exact_constants() -> Iterator[None]:
    """While the block runs, coremltools takes one constant for another only if both are equal."""
    modules = [import_module(name) for name in _FUSIONS]
    before = [module._check_var_scalar_value for module in modules]
    tolerances = dict(const_deduplication.DTYPE2ATOL)
    for module in modules:
        module._check_var_scalar_value = _is  # type: ignore[attr-defined]
    const_deduplication.DTYPE2ATOL.update(dict.fromkeys(tolerances, 0.0))
    try:
        yield
    finally:
        for module, check in zip(modules, before, strict=True):
            module._check_var_scalar_value = check  # type: ignore[attr-defined]
        const_deduplication.DTYPE2ATOL.update(tolerances)


@contextmanager
def kept_sparse_palettes() -> Iterator[None]:
    """While the block runs, coremltools merges no equal operations of several outputs.

    It moves the uses of the first output alone and fails to remove the rest. What they hold is
    stored once all the same.
    """
    find = const_deduplication.find_constexprs

    def find_single(blocks: list[Any]) -> dict[Any, list[Any]]:
        return {v: same for v, same in find(blocks).items() if len(v.op.outputs) == 1}

    const_deduplication.find_constexprs = staticmethod(find_single)
    try:
        yield
    finally:
        const_deduplication.find_constexprs = staticmethod(find)


def _is(variable: Any, value: float, _tolerance: float = 0.0) -> bool:
    """Whether a variable is one number, and this one as float32."""
    known = variable.val
    if known is None or isinstance(known, (str, bool)) or np.size(known) != 1:
        return False
    return bool(np.float32(np.ravel(known)[0]) == np.float32(_SHORT.get(value, value)))
