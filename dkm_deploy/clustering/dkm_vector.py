"""DKM on vectors, exact, with memory that grows with the vectors only.

The paper is Cho et al., ICLR 2022, arXiv 2108.12659, section 3.2 with the vectors of 3.3. One
iteration on vectors ``x_i`` and centroids ``c_j`` of one group is

    z_ij = -|x_i - c_j|^2 / tau,  a_ij = softmax_j z_ij,  s_j = sum_i a_ij,
    c'_j = sum_i a_ij x_i / s_j,

and the result of the last one is ``y_i = sum_j a_ij c'_j``. The attention ``a`` is never kept: it
is computed again from the centroids, block by block, whenever a pass needs it.

Backward, with ``g_i = dL/dy_i`` and ``v_j = dL/dc'_j``, which starts as ``sum_i a_ij g_i``. One
iteration is pulled back by (``g`` is there for the last iteration only)

    u_j     = v_j / s_j
    p_ij    = g_i . c'_j + u_j . (x_i - c'_j)            (this is dL/da_ij)
    q_ij    = a_ij (p_ij - sum_l a_il p_il)              (this is dL/dz_ij, its rows sum to 0)
    dL/dx_i += sum_j a_ij u_j + 2/tau sum_j q_ij c_j
    dL/dc_j = 2/tau (sum_i q_ij x_i - c_j sum_i q_ij)    (the v of the iteration before)

Three gradients of the centroids:

- ``unrolled``: through all iterations, as in the paper.
- ``one_step``: through the last iteration only (Jacobian-free backpropagation).
- ``implicit``: as if infinitely many iterations had been made at the last centroids. With J the
  Jacobian of one iteration, v is replaced by ``v + (I - J^T)^-1 dL/dc``. J is similar to a
  symmetric matrix with eigenvalues in [0, 1) at a fixed point, and 1 is where two centroids
  merge. So the solution is found by Lanczos with passes over the vectors, and no eigendirection is
  amplified more than 50 times: exact up to an eigenvalue of 0.98, bounded beyond.

Precision: an error of the logits is a relative error of the attention, and logits have the size
of the vectors' variance over tau. Passes are in float32 where that ratio permits and products of
float32 are exact to float32, else in float64. There, only the pairs of a vector and a centroid that
attention is not next to nothing for are worked on. A centroid that lives on such next to nothing
makes all passes exact: float64, with all pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from dkm_deploy.clustering.krylov import capped_resolvent
from dkm_deploy.clustering.vector_attention import Matrix, Pairs, attend_

_SHARP = 50.0  # squared distance from the mean over tau from which logits need float64
# Sum of attention below which a centroid lives on what is cut off.
_FAINT = {torch.float32: 1e-20, torch.float64: 1e-6}
_BLOCK = 1 << 18  # attentions at a time on a CPU: what its cache holds
_DEVICE_BLOCK = 1 << 24  # the same on other devices: 64 MiB of float32
_MERGING = 0.02  # distance of an eigenvalue of J from 1 that is still told from 1
_PRODUCTS = 40  # passes that the implicit gradient takes at most


def soft_cluster_vectors(
    vectors: Tensor, centroids: Tensor, tau: Tensor, iterations: int, gradient: str = "unrolled"
) -> tuple[Tensor, Tensor]:
    """Replace each vector by its attention-weighted mean of centroids.

    What is kept for the backward pass is ``vectors`` and the centroids of each iteration. The
    gradient can be taken once, not differentiated again.

    Args:
        vectors: float16, bfloat16, float32 or float64, ``(groups, count, dim)``.
        centroids: ``(groups, clusters, dim)``, where to start; no gradient flows into them.
        tau: temperature in squared weight units, ``(groups,)``; 0 is hard k-means.
        iterations: at least 1.
        gradient: "unrolled", "implicit" or "one_step"; see the module. It and ``iterations`` are
            checked by :func:`dkm_deploy.clustering.dkm.soft_cluster`.

    Returns:
        The soft vectors, in shape and dtype as ``vectors``, and the last centroids, detached, in
        the dtype of ``centroids``. A centroid that nothing attends to stays where it was.
    """
    soft, path, _ = _forward(vectors, centroids.detach(), tau.detach(), iterations, gradient)
    return soft, path[-1].detach().to(centroids.dtype)


@torch.library.custom_op("dkm::soft_cluster_vectors", mutates_args=())
def _forward(
    vectors: Tensor, centroids: Tensor, tau: Tensor, iterations: int, gradient: str
) -> tuple[Tensor, Tensor, Tensor]:
    """The soft vectors, and of the iterations to pull back: all centroids and attention sums.

    The latter are float64, ``(kept + 1, groups, clusters, dim)`` and ``(kept, groups, clusters)``.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        passes = _Passes.of(vectors, tau, exact=False)
        path, mass = _iterate(passes, centroids, iterations)
        if passes.cut_off(mass):
            passes = _Passes.of(vectors, tau, exact=True)
            path, mass = _iterate(passes, centroids, iterations)
        kept = iterations if gradient == "unrolled" else 1
        soft = passes.read(path[-2], path[-1])
        return soft, path[-kept - 1 :].clone(), mass[-kept:].clone()


@_forward.register_fake
def _(
    vectors: Tensor, centroids: Tensor, tau: Tensor, iterations: int, gradient: str
) -> tuple[Tensor, Tensor, Tensor]:
    kept = iterations if gradient == "unrolled" else 1
    path = centroids.new_empty((kept + 1, *centroids.shape), dtype=torch.float64)
    mass = centroids.new_empty((kept, *centroids.shape[:2]), dtype=torch.float64)
    return torch.empty_like(vectors, memory_format=torch.contiguous_format), path, mass


@torch.library.custom_op("dkm::soft_cluster_vectors_backward", mutates_args=())
def _backward(
    upstream: Tensor, vectors: Tensor, path: Tensor, mass: Tensor, tau: Tensor, gradient: str
) -> Tensor:
    """The gradient of the vectors."""
    with torch.autocast(vectors.device.type, enabled=False):
        passes = _Passes.of(vectors, tau, exact=False)
        if passes.cut_off(mass):
            passes = _Passes.of(vectors, tau, exact=True)
        result = torch.zeros(vectors.shape, dtype=passes.kept_dtype, device=vectors.device)
        adjoint = passes.pool(path[-2], upstream)
        grad: Tensor | None = upstream
        for step in reversed(range(len(mass))):
            last = _Step(path[step], path[step + 1], mass[step])
            adjoint = passes.pull_back(last, adjoint, grad, result)
            grad = None
        if gradient == "implicit":
            passes.pull_back(last, _implicit(passes, last, adjoint), None, result)
        return result.to(vectors.dtype)


@_backward.register_fake
def _(
    upstream: Tensor, vectors: Tensor, path: Tensor, mass: Tensor, tau: Tensor, gradient: str
) -> Tensor:
    return torch.empty_like(vectors, memory_format=torch.contiguous_format)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    vectors, _, tau, _, ctx.gradient = inputs
    _, path, mass = output
    ctx.mark_non_differentiable(path, mass)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(vectors, path, mass, tau)


def _differentiate(ctx: Any, upstream: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    if upstream is None:
        return None, None, None, None, None
    return _backward(upstream, *ctx.saved_tensors, ctx.gradient), None, None, None, None


_forward.register_autograd(_differentiate, setup_context=_save)


@dataclass(frozen=True)
class _Step:
    """One iteration: centroids before and after ``(groups, clusters, dim)``, attention sums."""

    before: Tensor
    after: Tensor
    mass: Tensor


def _iterate(passes: _Passes, centroids: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Centroids before and after each iteration, and the attention sums of each."""
    path, masses = [centroids.double()], []
    for _ in range(iterations):
        means, mass = passes.update(path[-1])
        path.append(means)
        masses.append(mass)
    return torch.stack(path), torch.stack(masses)


def _implicit(passes: _Passes, step: _Step, right: Tensor) -> Tensor:
    """``(I - J^T)^-1 right``; scaled by the root of the attention sums, J is symmetric."""
    root = torch.where(step.mass > 0, step.mass, 1).sqrt()[..., None]

    def product(flat: Tensor) -> Tensor:
        adjoint = flat.reshape(right.shape) * root
        return (passes.pull_back(step, adjoint) / root).flatten(1)

    scaled = (right / root).flatten(1)
    solved = capped_resolvent(product, scaled, floor=_MERGING, steps=_PRODUCTS, tolerance=1e-5)
    return solved.reshape(right.shape) * root


@dataclass(frozen=True)
class _Passes:
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
    def of(cls, vectors: Tensor, tau: Tensor, *, exact: bool) -> _Passes:
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
        relative = _turned((values - self.centre).to(self.dtype))
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
        self, step: _Step, adjoint: Tensor, grad: Tensor | None = None, out: Tensor | None = None
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
        columns, keys = (_turned(t.to(self.dtype)) for t in pulled)
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


def _turned(columns: Tensor) -> Tensor:
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
