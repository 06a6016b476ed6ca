"""All decompositions of a program that goes to Core AI."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import coreai_torch
import torch

# Which calls it lowers itself; it has no public name for them.
from coreai_torch._aten_to_core import _aten_to_core_resolver
from torch._decomp import decomposition_table

from converters.coreai.decompositions.conv_transpose3d import convolution
from converters.coreai.decompositions.fourier import FOURIER
from converters.coreai.decompositions.functions import FUNCTIONS
from converters.coreai.decompositions.indexing import INDEXING
from converters.coreai.decompositions.pooling import POOLING
from converters.coreai.decompositions.resizing import RESIZING
from converters.coreml.decompositions import functions, matrices, ordering, reductions, shapes
from converters.grouped_products import grouped_products
from converters.scaled_sums import SCALED_SUMS

Decomposition = Callable[..., Any]

_OURS: dict[Any, Decomposition] = {
    torch.ops.aten.convolution.default: convolution,
    **SCALED_SUMS,
    **FOURIER,
    **FUNCTIONS,
    **INDEXING,
    **POOLING,
    **RESIZING,
}
# Of Core ML's, in order of precedence; PyTorch's own come last.
_OTHERS: tuple[dict[Any, Decomposition], ...] = (
    functions.FUNCTIONS,
    matrices.MATRICES,
    ordering.ORDERING,
    reductions.REDUCTIONS,
    shapes.SHAPES,
    decomposition_table,
)


def decompositions() -> dict[Any, Decomposition]:
    """How to take apart what coreai-torch has no operation for, or gets wrong.

    What it lowers itself, and right, stays as it is.
    """
    table = dict(coreai_torch.get_decomp_table().items())
    for others in _OTHERS:
        for call, how in others.items():
            if not is_lowered(call):
                table.setdefault(call, how)
    return {**table, **_OURS, **grouped_products()}


def is_lowered(call: Any) -> bool:
    """Whether coreai-torch has an operation for a call."""
    return str(call).removeprefix("aten.") in _aten_to_core_resolver
