"""The gradient of soft k-means of points on a line, as two functions of the weight.

With the upstream gradient ``g_i`` of weight ``w_i``, the gradient is ``g_i * own(w_i) +
shared(w_i)``: ``own`` is the derivative of the soft weight at fixed centroids, ``shared`` comes
through the means of all iterations. An upstream gradient of ones makes ``own + shared = 1``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dkm_deploy.clustering.dkm.scalar_attention import Band, Points, attend, update

_MERGING = 0.02  # distance of an eigenvalue of the iteration from 1 that is still told from 1


def pulls(
    points: Points, path: Tensor, tau: Tensor, upstream: Tensor, gradient: str
) -> tuple[Tensor, Tensor]:
    """``own`` and ``shared`` at the points, each ``(points,)``.

    Args:
        points: of all groups.
        path: all centroids on the way, ``(iterations + 1, groups, clusters)``.
        tau: ``(groups,)``.
        upstream: sum of the upstream gradient at each point, ``(points,)``.
        gradient: "unrolled", "implicit" or "one_step".
    """
    band = attend(points, path[-2], tau)
    mass = update(points, band, path[-2])[1]
    goal = band.total(band.weights * upstream, mass)
    own = (band.slopes() * band.take(path[-1])).sum(0)
    shared = _mean_pull(points, band, path[-1], _share_goal(goal, mass))
    if gradient == "one_step":
        return own, shared
    goal = _start_pull(points, band, path[-1], mass, goal, upstream)
    if gradient == "implicit":
        force = _solve_adjoint(points, band, mass, goal)
        return own, shared + _mean_pull(points, band, path[-1], force)
    for start, moved in zip(path[:-2].flip(0), path[1:-1].flip(0), strict=True):
        band = attend(points, start, tau)
        mass = update(points, band, start)[1]
        shared = shared + _mean_pull(points, band, moved, _share_goal(goal, mass))
        goal = _start_pull(points, band, moved, mass, goal)
    return own, shared


def _share_goal(goal: Tensor, mass: Tensor) -> Tensor:
    # A centroid that stayed where it was is no mean: nothing flows to weights.
    return torch.where(mass > 0, goal / torch.where(mass > 0, mass, 1), 0)


def _mean_pull(points: Points, band: Band, moved: Tensor, force: Tensor) -> Tensor:
    """Derivative with respect to a weight at each point, through the means of an iteration.

    ``force`` is ``dL/dmoved`` over the mass.
    """
    offset = points.at - band.take(moved)
    return (band.take(force) * (band.weights + band.slopes() * offset)).sum(0)


def _start_pull(
    points: Points,
    band: Band,
    moved: Tensor,
    mass: Tensor,
    goal: Tensor,
    upstream: Tensor | None = None,
) -> Tensor:
    """Derivative with respect to the centroids that an iteration started from.

    ``goal`` is ``dL/dmoved``; ``upstream`` is given for the last iteration, whose attention also
    makes the soft weights.
    """
    new = band.take(moved)
    pull = points.mass * band.take(_share_goal(goal, mass)) * (points.at - new)
    if upstream is not None:
        pull = pull + upstream * new
    pull = band.weights * (pull - (band.weights * pull).sum(0))
    return torch.where(mass > 0, 0, goal) + band.total(band.rates * pull * band.gaps, moved)


def _solve_adjoint(points: Points, band: Band, mass: Tensor, goal: Tensor) -> Tensor:
    """``(I - J^T)^-1 goal`` over the mass, J the Jacobian of the iteration at its fixed point.

    J is similar to a symmetric matrix with eigenvalues in [0, 1), and 1 is where centroids
    merge: no eigendirection is amplified more than ``1 / _MERGING`` times.
    """
    root = torch.where(mass > 0, mass, 1).sqrt()
    likeness = _curvature(points, band, mass) / (root[:, :, None] * root[:, None, :])
    values, directions = torch.linalg.eigh(likeness)
    parts = directions.mT @ (goal / root)[..., None]
    parts = parts / (1 - values).clamp(min=_MERGING)[..., None]
    return torch.where(mass > 0, (directions @ parts)[..., 0] / root, 0)


def _curvature(points: Points, band: Band, mass: Tensor) -> Tensor:
    """The Jacobian of the iteration at its fixed point, times the mass: symmetric."""
    groups, clusters = mass.shape
    pulled = band.weights * band.gaps
    scaled = points.mass * band.rates * pulled
    inside = band.columns - points.rows * clusters
    result = mass.new_zeros(groups * clusters * clusters)
    for column, row in zip(inside, pulled, strict=True):
        result.index_add_(
            0, (band.columns * clusters + column).flatten(), (-scaled * row).flatten()
        )
    result = result.view(groups, clusters, clusters)
    return result + torch.diag_embed(band.total(scaled * band.gaps, mass))
