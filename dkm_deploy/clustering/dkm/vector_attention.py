"""Attention of vectors to centroids, as a matrix or as the few pairs of it that count.

Where the temperature is small, a vector attends to a handful of centroids: their pairs are found by
one comparison of the logits, and all that follows costs nothing for the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

_CUT = {torch.float32: 60.0, torch.float64: 600.0}  # logits this far below the best are -infinity
_PAIRS_CUT = 40.0  # the same for pairs: e**-40 is 4e-18
_PART = 8  # logits in a row that are compared as one at first
_FEW = 32  # of the parts of all rows one in so many may hold a pair, else a matrix is faster


@dataclass(frozen=True)
class Matrix:
    """Attention as a matrix.

    Attributes:
        weights: ``(groups, rows, clusters)``.
    """

    weights: Tensor

    def read(self, columns: Tensor) -> Tensor:
        """``sum_j a_ij columns_j`` of ``(groups, clusters, width)``, for each row."""
        return self.weights @ columns

    def pool(self, rows: Tensor) -> Tensor:
        """``sum_i a_ij rows_i`` of ``(groups, rows, width)`` for each cluster, in their dtype."""
        # In the order that MKL is four times as fast in.
        return (rows.mT @ self.weights.to(rows.dtype)).mT

    def pull(self, rows: Tensor, columns: Tensor, expected: Tensor) -> Matrix:
        """``a_ij (rows_i . columns_j - expected_i)`` in place of ``a_ij``."""
        return Matrix(torch.baddbmm(-expected, rows, columns.mT).mul_(self.weights))


@dataclass(frozen=True)
class Pairs:
    """Attention as a list of pairs, row by row; all others are 0.

    Attributes:
        shape: groups, rows, clusters.
        row: int64, ``(pairs,)``: flat index into groups and rows, in order.
        cluster: int64, ``(pairs,)``: flat index into groups and clusters.
        weights: ``(pairs,)``.
    """

    shape: torch.Size
    row: Tensor
    cluster: Tensor
    weights: Tensor

    def read(self, columns: Tensor) -> Tensor:
        """As :meth:`Matrix.read`."""
        groups, rows, _ = self.shape
        starts = torch.searchsorted(self.row, torch.arange(groups * rows, device=self.row.device))
        sums: Tensor = embedding_bag(
            self.cluster,
            columns.flatten(0, 1).contiguous(),
            starts,
            mode="sum",
            per_sample_weights=self.weights,
        )
        return sums.view(groups, rows, -1)

    def pool(self, rows: Tensor) -> Tensor:
        """As :meth:`Matrix.pool`."""
        groups, _, clusters = self.shape
        parts = rows.flatten(0, 1).index_select(0, self.row).mul_(self.weights[:, None])
        sums = rows.new_zeros(groups * clusters, rows.shape[-1])
        return sums.index_add_(0, self.cluster, parts).view(groups, clusters, -1)

    def pull(self, rows: Tensor, columns: Tensor, expected: Tensor) -> Pairs:
        """As :meth:`Matrix.pull`."""
        products = rows.flatten(0, 1).index_select(0, self.row)
        products.mul_(columns.flatten(0, 1).contiguous().index_select(0, self.cluster))
        force = products.sum(-1).sub_(expected.flatten().index_select(0, self.row))
        return replace(self, weights=force.mul_(self.weights))


def attend_(logits: Tensor, *, exact: bool) -> Matrix | Pairs:
    """Softmax of ``(groups, rows, clusters)`` over the clusters, 0 where next to nothing.

    Args:
        logits: float32 or float64; overwritten.
        exact: make no pairs.
    """
    if logits.dtype == torch.float64 and not exact:
        pairs = _pairs(logits)
        if pairs is not None:
            return pairs
    return Matrix(_softmax_(logits))


def _pairs(logits: Tensor) -> Pairs | None:
    """The pairs within the cut, or None where they are many."""
    groups, rows, clusters = logits.shape
    if clusters % _PART:
        return None
    parts = logits.view(groups * rows, -1, _PART)
    highest = parts.amax(2)
    best = highest.amax(1, keepdim=True)
    # Not >=: what is not a number must stay.
    row, part = (highest < best - _PAIRS_CUT).logical_not_().nonzero(as_tuple=True)
    if len(row) > logits.numel() // _FEW:
        return None
    part += row * (clusters // _PART)
    values = parts.view(-1, _PART).index_select(0, part).sub_(best.index_select(0, row))
    found, inside = (values < -_PAIRS_CUT).logical_not_().nonzero(as_tuple=True)
    row = row.index_select(0, found)
    cluster = part.index_select(0, found).mul_(_PART).add_(inside).sub_(row * clusters)
    if groups > 1:
        cluster += row // rows * clusters
    scores = values[found, inside].exp_()
    total = scores.new_zeros(groups * rows).index_add_(0, row, scores)
    return Pairs(logits.shape, row, cluster, scores.div_(total.index_select(0, row)))


def _softmax_(logits: Tensor) -> Tensor:
    """Softmax over the last dimension, with exact zeros for what is next to nothing.

    Without the cut, denormal numbers make the products with the attention 15 times slower. In
    float64 they are too rare to slow the softmax itself.
    """
    cut = _CUT[logits.dtype]
    if logits.dtype != torch.float64:
        logits.sub_(logits.amax(-1, keepdim=True)).clamp_(min=-cut)
    attention = torch.softmax(logits, dim=-1)
    return torch.threshold_(attention, math.exp(0.1 - cut), 0.0)
