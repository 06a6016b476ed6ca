"""Matrix products that coremltools lacks, in terms of those that it knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_aten = torch.ops.aten


def _addbmm(x: Tensor, left: Tensor, right: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Any:
    product = torch.bmm(left, right).sum(0) * alpha
    return product if beta == 0 else x * beta + product


def _matmul(x: Tensor, y: Tensor) -> Any:
    """Products of vectors, which have a dimension of length 1 less than Core ML makes of them."""
    if x.ndim > 1 or (x.ndim == 1 and y.ndim == 2):
        return NotImplemented
    if y.ndim == 1:
        return (x * y).sum()
    return torch.matmul(x.unsqueeze(0), y).squeeze(-2)


def _bilinear(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x W y`` for each of the matrices ``W``, as two products of matrices."""
    rows = torch.matmul(x.unsqueeze(-2).unsqueeze(-2), weight).squeeze(-2)
    product = torch.matmul(rows, y.unsqueeze(-1)).squeeze(-1)
    return product if bias is None else product + bias


def _distances(x: Tensor, y: Tensor, p: float, _: int | None) -> Tensor:
    """The p-norm of the differences of all pairs of rows."""
    apart = (x.unsqueeze(-2) - y.unsqueeze(-3)).abs()
    if p == 0:
        return (apart != 0).to(x.dtype).sum(-1)
    if p == float("inf"):
        return apart.amax(-1)
    if p == 1:
        return apart.sum(-1)
    return apart.square().sum(-1).sqrt() if p == 2 else apart.pow(p).sum(-1).pow(1 / p)


MATRICES: dict[Any, Callable[..., Any]] = {
    _aten.addbmm.default: _addbmm,
    _aten.matmul.default: _matmul,
    _aten.bilinear.default: _bilinear,
    _aten._cdist_forward.default: _distances,
}
