"""The one op: ``dkm::lut_to_dense(indices, lut, axis)``, the decoding of a palette in a graph.

A frozen model computes its weights with this op. ``torch.export`` keeps it whole, so a converter
is the lowering of this op and nothing else: no weight is matched by name or value, and no
optimiser sees a constant that it could fold, fuse or transpose.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("dkm::lut_to_dense", mutates_args=())
def lut_to_dense(indices: Tensor, lut: Tensor, axis: int) -> Tensor:
    """Decode a palette. Differentiable in the LUT: an entry gets the sum over its weights.

    Args:
        indices: uint8, rank K.
        lut: floating, ``(g0 .. gK-1, 2**bits, cluster_dim)``.
        axis: the dimension that a LUT entry fills.

    Returns:
        The dense weight in the LUT's dtype: the shape of ``indices`` with dimension ``axis``
        multiplied by ``cluster_dim``.
    """
    vectors = lut.reshape(-1, lut.shape[-1])[_rows(indices, lut.shape)]
    return vectors.movedim(-1, axis + 1).flatten(axis, axis + 1).contiguous()


@lut_to_dense.register_fake
def _(indices: Tensor, lut: Tensor, axis: int) -> Tensor:
    shape = list(indices.shape)
    shape[axis] *= lut.shape[-1]
    return lut.new_empty(shape)


def _rows(indices: Tensor, lut_shape: Sequence[int]) -> Tensor:
    """Row of every index in the LUTs laid end to end."""
    rows = indices.long()
    stride = lut_shape[-2]
    for dim in reversed(range(indices.ndim)):
        length, count = indices.shape[dim], lut_shape[dim]
        if count > 1:
            offsets = torch.arange(length, device=indices.device) // (length // count) * stride
            rows = rows + offsets.reshape([-1] + [1] * (indices.ndim - dim - 1))
        stride *= count
    return rows


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:  # noqa: ARG001
    indices, lut, ctx.axis = inputs
    ctx.lut_shape = lut.shape
    ctx.save_for_backward(indices)


def _backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None]:
    (indices,) = ctx.saved_tensors
    dim = ctx.lut_shape[-1]
    split = [*gradient.shape[: ctx.axis], -1, dim, *gradient.shape[ctx.axis + 1 :]]
    vectors = gradient.reshape(split).movedim(ctx.axis + 1, -1)
    rows = _rows(indices, ctx.lut_shape).flatten()
    sums = gradient.new_zeros(ctx.lut_shape).reshape(-1, dim)
    sums.index_add_(0, rows, vectors.reshape(-1, dim))
    return None, sums.reshape(ctx.lut_shape), None


lut_to_dense.register_autograd(_backward, setup_context=_keep)
