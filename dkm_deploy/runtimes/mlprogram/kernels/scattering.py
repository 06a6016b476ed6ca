"""Operators that write values to places."""

import torch
from torch import Tensor

from dkm_deploy.errors import DkmError
from dkm_deploy.runtimes.mlprogram.kernels.indexing import wrapped
from dkm_deploy.runtimes.mlprogram.kernels.registry import kernel

_REDUCTIONS = {
    "add": "sum",
    "sub": "sum",
    "mul": "prod",
    "div": "prod",
    "max": "amax",
    "min": "amin",
}


@kernel("scatter", ignored=("validate_indices",))
def _scatter(
    data: Tensor, indices: Tensor, updates: Tensor, axis: int = 0, mode: str = "add"
) -> Tensor:
    # One dimension of indices: each writes a whole slice along the axis.
    axis %= data.ndim
    places = wrapped(indices, data.shape[axis])
    spread = [1] * axis + [-1] + [1] * (data.ndim - axis - 1)
    return _written(data, places.reshape(spread).expand_as(updates), updates, axis, mode)


@kernel("scatter_along_axis", ignored=("validate_indices",))
def _scatter_along_axis(
    data: Tensor, indices: Tensor, updates: Tensor, axis: int = 0, mode: str = "add"
) -> Tensor:
    return _written(data, wrapped(indices, data.shape[axis]), updates, axis, mode)


@kernel("scatter_nd", ignored=("validate_indices",))
def _scatter_nd(data: Tensor, indices: Tensor, updates: Tensor, mode: str = "add") -> Tensor:
    depth = indices.shape[-1]
    strides = [data[(0,) * (axis + 1)].numel() for axis in range(depth)]
    outer = data.shape[:depth]
    rows = sum(
        wrapped(indices[..., axis], outer[axis]) * (stride // strides[-1])
        for axis, stride in enumerate(strides)
    )
    places = torch.as_tensor(rows).reshape(-1, 1).expand(-1, strides[-1])
    flat = data.reshape(-1, strides[-1])
    return _written(flat, places, updates.reshape(places.shape), 0, mode).reshape(data.shape)


def _written(data: Tensor, places: Tensor, updates: Tensor, axis: int, mode: str) -> Tensor:
    if mode == "update":
        return data.scatter(axis, places, updates)
    if mode not in _REDUCTIONS:
        raise DkmError(f"mode {mode!r} is unknown; known: update, {', '.join(_REDUCTIONS)}")
    updates = -updates if mode == "sub" else 1 / updates if mode == "div" else updates
    return data.scatter_reduce(axis, places, updates, _REDUCTIONS[mode])
