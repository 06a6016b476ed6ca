"""The one op: ``dkm::lut_to_dense(indices, lut, axis)``, the decoding of a palette in a graph.

A frozen model computes its weights with this op. ``torch.export`` keeps it whole, so a converter
is the lowering of this op and nothing else: no weight is matched by name or value, and no
optimiser sees a constant that it could fold, fuse or transpose.
"""

import torch
from torch import Tensor


@torch.library.custom_op("dkm::lut_to_dense", mutates_args=())
def lut_to_dense(indices: Tensor, lut: Tensor, axis: int) -> Tensor:
    """Decode a palette.

    Args:
        indices: uint8, rank K.
        lut: floating, ``(g0 .. gK-1, 2**bits, cluster_dim)``.
        axis: the dimension that a LUT entry fills.

    Returns:
        The dense weight in the LUT's dtype: the shape of ``indices`` with dimension ``axis``
        multiplied by ``cluster_dim``.
    """
    rows = indices.long()
    stride = lut.shape[-2]
    for dim in reversed(range(indices.ndim)):
        length, count = indices.shape[dim], lut.shape[dim]
        if count > 1:
            offsets = torch.arange(length, device=indices.device) // (length // count) * stride
            rows = rows + offsets.reshape([-1] + [1] * (indices.ndim - dim - 1))
        stride *= count
    vectors = lut.reshape(-1, lut.shape[-1])[rows]
    return vectors.movedim(-1, axis + 1).flatten(axis, axis + 1).contiguous()


@lut_to_dense.register_fake
def _(indices: Tensor, lut: Tensor, axis: int) -> Tensor:
    shape = list(indices.shape)
    shape[axis] *= lut.shape[-1]
    return lut.new_empty(shape)
