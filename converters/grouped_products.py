"""Products of groups of rows with a matrix each, as mixtures of experts have them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def grouped_products() -> dict[Any, Callable[..., Any]]:
    """How to take apart PyTorch's call, and that of transformers if it is loaded."""
    calls = [torch.ops.aten._grouped_mm.default]
    of_transformers = getattr(torch.ops.transformers, "grouped_mm_fallback", None)
    calls += [] if of_transformers is None else [of_transformers.default]
    return dict.fromkeys(calls, _grouped_product)


def _grouped_product(
    x: Tensor,
    weights: Tensor,
    offs: Tensor | None = None,
    bias: Tensor | None = None,
    _: torch.dtype | None = None,
) -> Any:
    """Rows of ``x`` times the matrix of their group; ``offs`` says where each group ends.

    Every row meets every matrix: which it belongs to shows when the file runs. Rows behind the
    last group are zeros.
    """
    if x.ndim == 3 and weights.ndim == 3:
        return torch.bmm(x, weights)
    if offs is None or bias is not None or (x.ndim, weights.ndim) != (2, 3):
        return NotImplemented
    rows = torch.arange(x.shape[0], device=x.device)
    ends = offs.to(rows.dtype)
    group = (rows[:, None] >= ends[None]).to(rows.dtype).sum(1)
    numbers = torch.arange(weights.shape[0], device=x.device)
    product = torch.matmul(x[None], weights)
    return torch.where(
        (numbers[:, None] == group[None])[..., None], product, torch.zeros_like(product)
    ).sum(0)
