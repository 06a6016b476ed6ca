"""Operators that write values to places."""

from math import prod

import torch
from torch import Tensor

from dkm_deploy.errors import DkmError
from dkm_deploy.runtimes.mlprogram.kernels.indexing import check_beside
from dkm_deploy.runtimes.mlprogram.kernels.places import dimension, places
from dkm_deploy.runtimes.mlprogram.kernels.registry import kernel

_REDUCTIONS = {
    "add": "sum",
    "sub": "sum",
    "mul": "prod",
    "div": "prod",
    "max": "amax",
    "min": "amin",
}


@kernel("scatter")
def _scatter(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    opset: int,
    mode: str,  # its documentation names two defaults
    axis: int = 0,
    validate_indices: bool = False,
) -> Tensor:
    # One dimension of indices: each writes a whole slice along the axis.
    axis = dimension(axis, data.ndim)
    wanted = data.shape[:axis] + indices.shape + data.shape[axis + 1 :]
    if indices.ndim != 1 or updates.shape != wanted:
        raise DkmError(f"updates have shape {tuple(updates.shape)}; it must be {tuple(wanted)}")
    where = places(indices, data.shape[axis], opset, validate_indices)
    spread = [1] * axis + [-1] + [1] * (data.ndim - axis - 1)
    return _write_updates(data, where.reshape(spread).expand_as(updates), updates, axis, mode)


@kernel("scatter_along_axis")
def _scatter_along_axis(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    opset: int,
    axis: int = 0,
    mode: str = "add",
    validate_indices: bool = False,
) -> Tensor:
    axis = dimension(axis, data.ndim)
    check_beside(indices, data, axis)
    if indices.shape != updates.shape:
        shapes = f"{tuple(updates.shape)} for indices of shape {tuple(indices.shape)}"
        raise DkmError(f"updates of shape {shapes}; they must be the same")
    where = places(indices, data.shape[axis], opset, validate_indices)
    return _write_updates(data, where, updates, axis, mode)


@kernel("scatter_nd")
def _scatter_nd(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    opset: int,
    mode: str = "add",
    validate_indices: bool = False,
) -> Tensor:
    depth = indices.shape[-1]
    wanted = indices.shape[:-1] + data.shape[depth:]
    if depth > data.ndim or updates.shape != wanted:
        raise DkmError(f"updates have shape {tuple(updates.shape)}; it must be {tuple(wanted)}")
    row = prod(data.shape[depth:])
    rows = torch.zeros(indices.shape[:-1], dtype=torch.long)
    for axis, column in enumerate(indices.unbind(-1)):
        rows = rows * data.shape[axis] + places(column, data.shape[axis], opset, validate_indices)
    where = rows.reshape(-1, 1).expand(-1, row)
    flat = data.reshape(-1, row)
    return _write_updates(flat, where, updates.reshape(where.shape), 0, mode).reshape(data.shape)


def _write_updates(data: Tensor, where: Tensor, updates: Tensor, axis: int, mode: str) -> Tensor:
    if mode == "update":
        return data.scatter(axis, where, updates)
    if mode not in _REDUCTIONS:
        raise DkmError(f"mode {mode!r} is unknown; known: update, {', '.join(_REDUCTIONS)}")
    updates = -updates if mode == "sub" else 1 / updates if mode == "div" else updates
    return data.scatter_reduce(axis, where, updates, _REDUCTIONS[mode])
