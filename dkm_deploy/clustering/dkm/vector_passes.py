"""Passes over vectors, block by block: one iteration of DKM, and what pulls it back.

Formulas and their symbols are those of :mod:`dkm_deploy.clustering.dkm.vector`.

Precision: an error of the logits is a relative error of the attention, and logits have the size
of the vectors' variance over tau. Passes are in float32 where that ratio permits and products of
float32 are exact to float32, else in float64. There, only the pairs of a vector and a centroid that
attention is not next to nothing for are worked on. A centroid that lives on such next to nothing
makes all passes exact: float64, with all pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from dkm_deploy.clustering.dkm.vector_attention import Matrix, Pairs, attend_

_SHARP = 50.0  # squared distance from the mean over tau from which logits need float64
# Sum of attention below which a centroid lives on what is cut off.
_FAINT = {torch.float32: 1e-20, torch.float64: 1e-6}
_BLOCK = 1 << 18  # attentions at a time on a CPU: what its cache holds
_DEVICE_BLOCK = 1 << 24  # the same on other devices: 64 MiB of float32


@dataclass(frozen=True)
class CentroidUpdate:
    """One iteration: centroids before and after ``(groups, clusters, dim)``, attention sums."""

    before: Tensor
    after: Tensor
    mass: Tensor


@dataclass(frozen=True)
class Passes:
    """Passes over the vectors in blocks; each computes the attention anew.

    Arguments and results that hold a row a centroid are float64.

    Attributes:
        vectors: ``(groups, count, dim)``.
        dtype: of the computation.
        centre: about the mean of each group, ``(groups, 1, dim)``, in ``dtype``. Vectors and
            centroids are taken relative to it, so that products do not cancel.
        tau: float64, ``(groups, 1, 1)``, above 0.
        slope: 2 / tau, or 0 where tau is 0 to rounding and the attention is a step function.
        exact: in float64 and with all pairs of a vector and a centroid.
    """

    vectors: Tensor
    dtype: torch.dtype
    centre: Tensor
    tau: Tensor
    slope: Tensor
    exact: bool

    @classmethod
    def of(cls, vectors: Tensor, tau: Tensor, *, exact: bool) -> Passes:
        """Passes in the precision that ``tau`` needs, or in float64 if ``exact``."""
        narrow = torch.promote_types(vectors.dtype, torch.float32)
        variance, centre = torch.var_mean(vectors.to(narrow), dim=1, correction=0, keepdim=True)
        spread = variance.double().sum(2, keepdim=True)
        tau = tau.double()[:, None, None]
        floor = (spread * torch.finfo(torch.float64).eps).clamp(min=1e-200)
        # Root mean square, not mean: a few vectors far out have most of the gradient's error.
        size = (vectors.to(narrow) - centre).square().sum(2, keepdim=True).double()
        sharp = size.square().mean(1, keepdim=True).sqrt() > _SHARP * tau
        wide = exact or _coarse_products(vectors.device) or bool(sharp.any())
        dtype = torch.float64 if wide else narrow
        slope = torch.where(tau > floor, 2 / tau.clamp(min=1e-200), 0)
        return cls(vectors, dtype, centre.to(dtype), torch.maximum(tau, floor), slope, exact)

    def cut_off(self, mass: Tensor) -> bool:
        """Whether a centroid with these sums of attention lives on what these passes leave out."""
        return not self.exact and bool((mass < _FAINT[self.dtype]).any())

    @property
    def kept_dtype(self) -> torch.dtype:
        """Of results that hold a row a vector, before they are rounded to the vectors' dtype."""
        return torch.promote_types(self.vectors.dtype, torch.float32)

    def update(self, centroids: Tensor) -> tuple[Tensor, Tensor]:
        """The means that each centroid attends to, and its sum of attention."""
        totals = self._totals(centroids, self.vectors.shape[-1] + 1)
        for place, x, attention in self._blocks(centroids):
            # Many equal vectors round alike: their float32 sum would be off by 1e-5 of the range.
            totals[place[0]] += attention.pool(pad(x.double(), (0, 1), value=1.0))
        mass = totals[..., -1:]
        alive = mass > torch.finfo(self.dtype).tiny
        means = totals[..., :-1] / torch.where(alive, mass, 1) + self.centre
        return torch.where(alive, means, centroids), torch.where(alive, mass, 0)[..., 0]

    def read(self, centroids: Tensor, values: Tensor) -> Tensor:
        """``sum_j a_ij values_j`` of each vector, in the vectors' dtype."""
        relative = _for_right_product((values - self.centre).to(self.dtype))
        out = torch.empty_like(self.vectors, memory_format=torch.contiguous_format)
        for place, _, attention in self._blocks(centroids):
            out[place] = attention.read(relative[place[0]]) + self.centre[place[0]]
        return out

    def pool(self, centroids: Tensor, rows: Tensor) -> Tensor:
        """``sum_i a_ij rows_i`` of each centroid."""
        totals = self._totals(centroids, rows.shape[-1])
        for place, _, attention in self._blocks(centroids):
            totals[place[0]] += attention.pool(rows[place].to(self.dtype))
        return totals

    def pull_back(
        self,
        step: CentroidUpdate,
        adjoint: Tensor,
        grad: Tensor | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """The gradient of ``step.before`` from that of ``step.after``.

        Args:
            step: an iteration.
            adjoint: the gradient of ``step.after``.
            grad: for the last iteration, the gradient of the soft vectors.
            out: the gradient of the vectors is added to it, if given.
        """
        alive = (step.mass > 0)[..., None]
        share = torch.where(alive, adjoint / torch.where(alive, step.mass[..., None], 1), 0)
        before, after = step.before - self.centre, step.after - self.centre
        # p_ij is a product of rows [x_i, 1, g_i] and columns [u_j, -u_j . c'_j, c'_j].
        offset = -(share * after).sum(-1, keepdim=True)
        parts = [share, offset] if grad is None else [share, offset, after]
        pulled = torch.cat(parts, -1), self.slope * before
        columns, keys = (_for_right_product(t.to(self.dtype)) for t in pulled)
        dim = keys.shape[-1]
        totals = self._totals(before, dim + 1)
        for place, x, attention in self._blocks(step.before):
            group = place[0]
            padded = pad(x, (0, 1), value=1.0)
            rows = padded if grad is None else torch.cat([padded, grad[place].to(x.dtype)], -1)
            means = attention.read(columns[group])
            pull = attention.pull(rows, columns[group], (rows * means).sum(-1, keepdim=True))
            if out is not None:
                out[place] += pull.read(keys[group]).add_(means[..., :dim])
            totals[group] += pull.pool(padded)
        moved = self.slope * (totals[..., :-1] - before * totals[..., -1:])
        return moved + torch.where(alive, 0, adjoint)

    def _totals(self, centroids: Tensor, width: int) -> Tensor:
        shape = (*centroids.shape[:2], width)
        return torch.zeros(shape, dtype=torch.float64, device=centroids.device)

    def _blocks(
        self, centroids: Tensor
    ) -> Iterator[tuple[tuple[slice, slice], Tensor, Matrix | Pairs]]:
        """Where a block is, its vectors relative to the centre, and its attention."""
        relative = centroids - self.centre
        # |x|^2 is the same for all centroids, so that softmax does not need it.
        bias = (-relative.square().sum(-1)[:, None] / self.tau).to(self.dtype)
        keys = (relative * (2 / self.tau)).to(self.dtype).mT.contiguous()
        for place in _places(self.vectors, centroids.shape[1]):
            x = self.vectors[place].to(self.dtype) - self.centre[place[0]]
            logits = torch.baddbmm(bias[place[0]], x, keys[place[0]])
            yield place, x, attend_(logits, exact=self.exact)


def _for_right_product(columns: Tensor) -> Tensor:
    """The same values, laid out for a product from the right: twice as fast in MKL."""
    return columns.mT.contiguous().mT


def _coarse_products(device: torch.device) -> bool:
    """Whether the user lets float32 matrix products round to TF32 or bfloat16."""
    backend = torch.backends.mkldnn if device.type == "cpu" else torch.backends.cuda
    # Not torch.get_float32_matmul_precision(): it raises where this setting was used.
    return backend.matmul.fp32_precision not in ("none", "ieee")


def _places(vectors: Tensor, clusters: int) -> Iterator[tuple[slice, slice]]:
    """Slices of groups and of vectors that give about a block of attentions each."""
    groups, count, _ = vectors.shape
    block = _BLOCK if vectors.device.type == "cpu" else _DEVICE_BLOCK
    rows = min(count, max(1, block // clusters))
    several = max(1, block // (clusters * rows))
    for group in range(0, groups, several):
        for row in range(0, count, rows):
            yield slice(group, group + several), slice(row, row + rows)
