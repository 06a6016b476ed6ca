"""Lower ``dkm::lut_to_dense`` to Core ML's ``constexpr_lut_to_dense``, index for index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from coremltools.converters.mil import Builder
from coremltools.converters.mil.frontend.torch.ops import _get_inputs
from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY
from coremltools.converters.mil.mil import types

from dkm_deploy.packing import pack
from dkm_deploy.palette import Palette

# Widths of Core ML's index types: iOS 16 packs into uint8, iOS 18 has a type for each.
_WIDTHS_IOS16 = (1, 2, 4, 6, 8)
_WIDTHS_IOS18 = (1, 2, 3, 4, 6, 8)


def stored_bits(bits: int, *, ios18: bool) -> int:
    """The narrowest index type of the target that holds ``bits`` bits."""
    return next(w for w in (_WIDTHS_IOS18 if ios18 else _WIDTHS_IOS16) if w >= bits)


@contextmanager
def lowering(names: Mapping[str, str], *, ios18: bool) -> Iterator[None]:
    """Teach coremltools' torch front end our op while the block runs.

    Args:
        names: MIL name of the weight by the name of its indices in the exported graph.
        ios18: whether the deployment target has iOS 18's ops.
    """
    registry: dict[str, Any] = _TORCH_OPS_REGISTRY.name_to_func_mapping
    before = dict(registry)

    def lut_to_dense(context: Any, node: Any) -> None:
        indices, lut, axis = _get_inputs(context, node, expected=3)
        palette = Palette(indices.val.astype(np.uint8), lut.val, int(axis.val))
        name = names[node.inputs[0]]
        wide = palette.widen(stored_bits(palette.bits, ios18=ios18))
        weight = _ios18(wide, name) if ios18 else _ios16(wide, name)
        context.add(weight, torch_name=node.name)

    registry["lut_to_dense"] = registry["dkm.lut_to_dense"] = lut_to_dense
    registry["dkm::lut_to_dense"] = lut_to_dense
    try:
        yield
    finally:
        registry.clear()
        registry.update(before)


def _ios18(palette: Palette, name: str) -> Any:
    """Indices of a sub-byte type in the weight's shape; grouped and vector LUTs as they are."""
    dtype = types.nptype_from_builtin(types.string_to_builtin(f"uint{palette.bits}"))
    vector_axis = {"vector_axis": np.int32(palette.axis)} if palette.cluster_dim > 1 else {}
    return Builder.constexpr_lut_to_dense(
        indices=palette.indices.astype(dtype), lut=palette.lut, name=name, **vector_axis
    )


def _ios16(palette: Palette, name: str) -> Any:
    """Indices as a flat bit stream beside the shape, one LUT of rank 1."""
    return Builder.constexpr_lut_to_dense(
        indices=pack(palette.indices, palette.bits),
        lut=palette.lut.reshape(-1),
        shape=np.array(palette.shape, np.uint32),
        name=name,
    )
