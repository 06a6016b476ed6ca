"""Diagonals as values picked from rows laid end to end, for targets that lack the operation."""

from __future__ import annotations

import torch
from torch import Tensor


def diagonal(x: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """As ``torch.diagonal``: every so many values of the rows."""
    x = x.movedim((dim1, dim2), (-2, -1))
    rows, columns = x.shape[-2:]
    first = offset if offset >= 0 else -offset * columns
    length = max(0, min(rows + min(offset, 0), columns - max(offset, 0)))
    places = torch.arange(length, device=x.device) * (columns + 1) + first
    return x.flatten(-2).index_select(-1, places)
