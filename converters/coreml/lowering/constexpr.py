"""The constant operations that decode a palette, as each generation of Core ML has them."""

from __future__ import annotations

from typing import Any

import numpy as np
from coremltools.converters.mil import Builder
from coremltools.converters.mil.mil import types
from numpy.typing import NDArray

from dkm_deploy.packing import pack
from dkm_deploy.palette import Palette


def typed_lut_to_dense(palette: Palette, lut: Any, name: str) -> Any:
    """For iOS 18: indices of a sub-byte type in the weight's shape; all LUTs as they are."""
    dtype = types.nptype_from_builtin(types.string_to_builtin(f"uint{palette.bits}"))
    vector_axis = {"vector_axis": np.int32(palette.axis)} if palette.cluster_dim > 1 else {}
    return Builder.constexpr_lut_to_dense(
        indices=palette.indices.astype(dtype), lut=lut, name=name, **vector_axis
    )


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
