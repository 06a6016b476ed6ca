"""Sums and differences with a factor, whose ``alpha`` coremltools and coreai-torch drop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

_aten = torch.ops.aten


def _scale_other(call: Any, x: Tensor, other: Any, alpha: Any = 1) -> Any:
    return NotImplemented if alpha == 1 else call(x, other * alpha)


SCALED_SUMS: dict[Any, Callable[..., Any]] = {
    call: partial(_scale_other, call)
    for call in (_aten.add.Tensor, _aten.add.Scalar, _aten.sub.Tensor, _aten.sub.Scalar)
}
"""Decompositions of ``x + alpha * other`` and ``x - alpha * other`` into a product and a sum."""
