"""The constant operations that decode a palette, as each generation of Core ML has them."""

from __future__ import annotations

from typing import Any

import numpy as np
from coremltools.converters.mil import Builder
from coremltools.converters.mil.mil import types
from numpy.typing import NDArray

from converters.coreml.sparse_form import SparseIndices, sparse_indices
from dkm_deploy.packing import pack
from dkm_deploy.palette import Palette


def typed_lut(palette: Palette, lut: Any, name: str) -> Any:
    """For iOS 18: indices of a sub-byte type in the weight's shape; all LUTs as they are.

    Where zeros are so many that it takes fewer bytes, their index is left out.
    """
    sparse = sparse_indices(palette)
    if sparse is not None:
        return _sparse(sparse, palette, lut, name)
    indices = _typed(palette.indices, palette.bits)
    return Builder.constexpr_lut_to_dense(indices=indices, lut=lut, name=name, **_axis(palette))


def _sparse(sparse: SparseIndices, palette: Palette, lut: Any, name: str) -> Any:
    mask, nonzero = Builder.constexpr_lut_to_sparse(
        indices_mask=_typed(sparse.mask, 1),
        indices_nonzero_data=_typed(sparse.nonzero, palette.bits),
        lut=lut,
        name=f"{name}_sparse",
        **_axis(palette),
    )
    return Builder.constexpr_sparse_to_dense(nonzero_data=nonzero, mask=mask, name=name)


def _typed(values: NDArray[np.uint8], bits: int) -> NDArray[Any]:
    return values.astype(types.nptype_from_builtin(types.string_to_builtin(f"uint{bits}")))


def _axis(palette: Palette) -> dict[str, Any]:
    return {"vector_axis": np.int32(palette.axis)} if palette.cluster_dim > 1 else {}


def scale_channels(weight: Any, scale: NDArray[np.floating] | None, name: str) -> Any:
    """For iOS 26: a decoded weight times one value a channel."""
    return Builder.constexpr_blockwise_shift_scale(data=weight, scale=scale, name=f"{name}_scaled")


def palette_bytes(palette: Palette, name: str) -> Any:
    """For iOS 16: indices as a flat bit stream beside the shape, one LUT of rank 1."""
    return Builder.constexpr_lut_to_dense(
        indices=pack(palette.indices, palette.bits),
        lut=palette.lut.reshape(-1),
        shape=np.array(palette.shape, np.uint32),
        name=name,
    )
