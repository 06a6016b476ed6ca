"""The palette of a weight as its package can hold it, and the bytes that it takes."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np
import torch

from converters.coreml import deployment
from converters.coreml.rewriting.decode_operation import make_decode, make_scaling, stored_tensors
from converters.coreml.rewriting.weight_file import blob_size
from dkm_deploy.assignment import constant_text
from dkm_deploy.clustering.kmeans_palette import cluster
from dkm_deploy.clustering.layout import zero_palette
from dkm_deploy.errors import DkmError
from dkm_deploy.formats.mlpackage.proto import operation_class
from dkm_deploy.palette import Palette

if TYPE_CHECKING:
    from converters.coreml.rewriting.weights import Weight
    from dkm_deploy.palette_spec import PaletteSpec

_TARGETS = {5: "iOS16", 6: "iOS16", 7: "iOS17", 8: "iOS18", 9: "iOS26"}  # by opset


def deployment_target(weight: Weight) -> str:
    """The lowest that runs the functions that hold a weight, once they have palettes."""
    return _TARGETS[weight.opset]


def refuse(weight: Weight, spec: PaletteSpec) -> str | None:
    """Why a weight cannot have this palette where it is, or None if it can."""
    return deployment.refuse(spec, weight.shape, deployment_target(weight))


def stored_bits(weight: Weight, spec: PaletteSpec) -> int:
    """Bits of an index as the package stores it: Core ML lacks some widths."""
    return deployment.stored_bits(spec.bits, deployment_target(weight))


def clustered(weight: Weight, spec: PaletteSpec) -> Palette:
    """The palette of a weight by k-means. Raises DkmError if its values cannot be clustered."""
    # A copy: torch must not see a read-only array.
    values = torch.from_numpy(weight.read().copy())
    try:
        return _as_stored(weight, cluster(values, spec))
    except DkmError as error:
        raise DkmError(f"{weight.name}: {error}") from error


def stand_in(weight: Weight, spec: PaletteSpec) -> Palette:
    """A palette as ``spec`` gives for a weight, but all zeros: of the same bytes."""
    dtype = np.dtype(weight.constant.type.dtype.numpy_name)
    return _as_stored(weight, zero_palette(weight.shape, spec, dtype))


def not_smaller(weight: Weight, spec: PaletteSpec) -> str:
    """That a palette takes no fewer bytes than the weight, and both sizes; empty if it does."""
    dense = blob_size(prod(weight.shape) * weight.itemsize)
    size = _added_bytes(weight, stand_in(weight, spec))
    if size < dense:
        return ""
    return f"{prod(weight.shape)} values: {dense} bytes now, {size} as a palette"


def constant_values(weight: Weight) -> str:
    """That all values of a weight are equal, in words; empty if they are not."""
    return constant_text(torch.from_numpy(weight.read().copy()))


def _as_stored(weight: Weight, palette: Palette) -> Palette:
    """The same weight in a width that the package has, and with its scale where that can be."""
    target = deployment_target(weight)
    kept = palette.scale_in_luts() if deployment.scales_in_luts(target) else palette
    return kept.widen(deployment.stored_bits(palette.bits, target))


def _added_bytes(weight: Weight, palette: Palette) -> int:
    """Bytes of a palette in the weight file, and what it adds to the program."""
    tensors = stored_tensors(palette, weight.opset)
    in_file = {key: tensor for key, tensor in tensors.items() if tensor.in_file}
    places = dict.fromkeys(in_file, weight.pointer)
    operation, scaling = operation_class()(), operation_class()()
    operation.outputs.add().name = weight.sites[0][1]
    operation.attributes["val"].CopyFrom(weight.constant.proto)
    before = operation.ByteSize()
    make_decode(operation, palette, tensors, places)
    if palette.scale is not None:
        make_scaling(operation, scaling, tensors["scale"], places)
    grown: int = operation.ByteSize() + scaling.ByteSize() - before
    return grown * len(weight.sites) + sum(blob_size(t.data.size) for t in in_file.values())
