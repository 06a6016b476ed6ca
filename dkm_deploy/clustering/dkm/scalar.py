"""Differentiable k-means of scalars in time and memory that grow with the weights alone.

The weights are spread onto a table, all iterations run on the table, and the soft weights are read
off it; the gradient goes the same way back. Only the weights, the tau and the centroids on the way
are kept for it. Both directions are one op each, so that torch.compile takes them as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from dkm_deploy.clustering.dkm.scalar_adjoint import pulls
from dkm_deploy.clustering.dkm.scalar_attention import Points, iterate, soft_values
from dkm_deploy.clustering.dkm.scalar_grid import (
    REACH,
    Frame,
    Grid,
    Slices,
    frame_of,
    levels_for,
    make_grid,
    read,
    spread,
)

_GROUPS_AT_ONCE = 1 << 17  # weights in the groups handled together
_DIRECT = 1024  # weights of a group that need no table
_CELLS = 1 << 11  # of a table, before cells are cut into parts
_REBUILDS = 4  # of a table, for centroids that move out of its fine cells
_NEAR = 12.0  # widths of a turn that must stay in fine cells
_COLDEST = 1e-20  # tau in squared ranges: attention is hard for all that float64 tells apart


def soft_cluster_scalars(
    vectors: Tensor, centroids: Tensor, tau: Tensor, iterations: int, gradient: str
) -> tuple[Tensor, Tensor]:
    """:func:`dkm_deploy.clustering.dkm.soft_cluster.soft_cluster` for ``(groups, count, 1)``."""
    soft, moved, _ = _forward(
        vectors[..., 0], centroids.detach()[..., 0], tau.detach(), iterations, gradient
    )
    return soft[..., None], moved[..., None]


@torch.library.custom_op("dkm::soft_cluster_scalars", mutates_args=())
def _forward(
    weights: Tensor,
    centroids: Tensor,
    tau: Tensor,
    iterations: int,
    gradient: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Soft weights, last centroids, and the positions of all centroids on the way.

    The path has shape ``(iterations + 1, groups, clusters)``, float64, in the groups' ranges.
    """
    soft, moved = torch.empty_like(weights), torch.empty_like(centroids)
    path = _path_like(centroids, iterations)
    for groups in _join_outputs(weights):
        frame = frame_of(weights[groups])
        low, span = frame.low[:, None], frame.span[:, None]
        start = (centroids[groups].double() - low) / span
        frame, start, scaled, lost = _sound(frame, start[None], _tau_in_frame(tau[groups], frame))
        way = _cluster(frame, start[0], scaled, iterations, soft[groups])
        if lost.any():
            soft[groups][lost] = way[:, lost] = torch.nan
        path[:, groups] = way
        # One that stays does so to the last bit.
        means = (low + span * way[-1]).to(moved.dtype)
        moved[groups] = torch.where(way[-1] == way[0], centroids[groups], means)
    return soft, moved, path


@_forward.register_fake
def _(
    weights: Tensor, centroids: Tensor, _tau: Tensor, iterations: int, _gradient: str
) -> tuple[Tensor, Tensor, Tensor]:
    path = _path_like(centroids, iterations)
    return torch.empty_like(weights), torch.empty_like(centroids), path


@torch.library.custom_op("dkm::soft_cluster_scalars_backward", mutates_args=())
def _backward(
    upstream: Tensor, weights: Tensor, path: Tensor, tau: Tensor, gradient: str
) -> Tensor:
    """Gradient with respect to the weights, in their shape and dtype."""
    result = torch.empty_like(weights)
    for groups in _join_outputs(weights):
        frame = frame_of(weights[groups])
        frame, way, scaled, lost = _sound(frame, path[:, groups], _tau_in_frame(tau[groups], frame))
        _pull(frame, upstream[groups], way, scaled, gradient, result[groups])
        if lost.any():
            result[groups][lost] = torch.nan
    return result


@_backward.register_fake
def _(_upstream: Tensor, weights: Tensor, _path: Tensor, _tau: Tensor, _gradient: str) -> Tensor:
    return torch.empty_like(weights)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    weights, _, tau, _, ctx.gradient = inputs
    ctx.save_for_backward(weights, output[2], tau)
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, upstream: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if upstream is None:
        return None, None, None, None, None
    weights, path, tau = ctx.saved_tensors
    return _backward(upstream, weights, path, tau, ctx.gradient), None, None, None, None


_forward.register_autograd(_differentiate, setup_context=_keep)


def _path_like(centroids: Tensor, iterations: int) -> Tensor:
    return centroids.new_empty((iterations + 1, *centroids.shape), dtype=torch.float64)


def _join_outputs(weights: Tensor) -> Iterator[slice]:
    """Slices of groups, few enough that memory beside the weights stays small."""
    size = max(1, _GROUPS_AT_ONCE // weights.shape[1])
    return (slice(i, min(i + size, len(weights))) for i in range(0, len(weights), size))


def _tau_in_frame(tau: Tensor, frame: Frame) -> Tensor:
    return (tau.double() / frame.span.square()).clamp(min=_COLDEST)


def _sound(frame: Frame, path: Tensor, tau: Tensor) -> tuple[Frame, Tensor, Tensor, Tensor]:
    """The same with zeros for groups that hold NaN or infinity, and which groups these are."""
    finite = (frame.low + frame.span + tau + path.sum((0, 2))).isfinite()
    if not finite.all():
        frame = frame_of(torch.where(finite[:, None], frame.weights, 0))
        path = torch.where(finite[:, None], path, 0)
        tau = torch.where(finite, tau, 1)
    return frame, path, tau, ~finite


def _cluster(frame: Frame, start: Tensor, tau: Tensor, iterations: int, out: Tensor) -> Tensor:
    """The path of the centroids of groups handled together; soft weights go to ``out``."""
    levels = levels_for(start, tau, _cells(frame))
    grid = _table(frame, levels)
    for _ in range(_REBUILDS):
        points = _points(frame, grid)[0]
        path, band = iterate(points, start, tau, iterations)
        if grid is None or (_levels(frame, path, tau, _NEAR) <= levels).all():
            break
        levels = torch.maximum(levels, _levels(frame, path, tau))
        grid = _table(frame, levels)
    low, span = (of_groups.index_select(0, points.rows) for of_groups in (frame.low, frame.span))
    values = torch.addcmul(low, span, soft_values(band, path[-1]))
    _at_weights(frame, grid, [values], out, lambda _, at: at[0])
    return path


def _pull(
    frame: Frame, upstream: Tensor, path: Tensor, tau: Tensor, gradient: str, out: Tensor
) -> None:
    """The gradient with respect to the weights of groups handled together, to ``out``."""
    grid = _table(frame, _levels(frame, path, tau))
    points, summed = _points(frame, grid, upstream)
    tables = list(pulls(points, path, tau, summed, gradient))
    _at_weights(
        frame,
        grid,
        tables,
        out,
        lambda block, at: torch.addcmul(at[1], upstream[block].to(at[0].dtype), at[0]),
    )


def _cells(frame: Frame) -> int:
    count = frame.weights.shape[1]
    return min(_CELLS, 1 << max(count // 8, 1).bit_length())


def _levels(frame: Frame, path: Tensor, tau: Tensor, reach: float = REACH) -> Tensor:
    cells = _cells(frame)
    return torch.stack([levels_for(c, tau, cells, reach) for c in path[:-1]]).amax(0)


def _table(frame: Frame, levels: Tensor) -> Grid | None:
    """The grid, or None where it would not be much smaller than the weights."""
    groups, count = frame.weights.shape
    nodes = int((1 << levels).sum()) + groups
    return make_grid(levels) if count > _DIRECT and 2 * nodes < groups * count else None


def _points(
    frame: Frame, grid: Grid | None, upstream: Tensor | None = None
) -> tuple[Points, Tensor]:
    """The points that stand for the weights, and the sum of ``upstream`` at each."""
    weights = frame.weights
    if grid is None:
        at = frame.positions((slice(0, len(weights)), slice(None))).flatten()
        rows = torch.arange(len(weights), device=at.device).repeat_interleave(weights.shape[1])
        summed = at if upstream is None else upstream.double().flatten()
        return Points(at, rows, torch.ones_like(at), torch.zeros_like(at)), summed
    sums = spread(grid, frame, *([] if upstream is None else [upstream]))
    return Points(grid.nodes, grid.rows, sums[0], grid.steps()), sums[-1]


def _at_weights(
    frame: Frame,
    grid: Grid | None,
    tables: list[Tensor],
    out: Tensor,
    use: Callable[[Slices, list[Tensor]], Tensor],
) -> None:
    """As :func:`dkm_deploy.clustering.dkm.scalar_grid.read`.

    Without a grid the tables are the values at the weights.
    """
    if grid is not None:
        read(grid, frame, tables, out, use)
    else:
        block = slice(0, len(out)), slice(None)
        out.copy_(use(block, [table.view(out.shape) for table in tables]))
