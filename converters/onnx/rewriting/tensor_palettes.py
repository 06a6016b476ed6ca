"""The palette of one tensor of an ONNX file: clustered, and how many bytes it takes."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import torch
from onnx import TensorProto, helper

from converters.onnx.decoding.bfloat16 import narrow_lut
from converters.onnx.decoding.encode import encode
from converters.onnx.graph.consumers import name_of
from converters.onnx.graph.external_data import stored_bytes
from converters.onnx.graph.tensors import array_of
from dkm_deploy.clustering.kmeans_palette import cluster
from dkm_deploy.clustering.layout import zero_palette
from dkm_deploy.errors import DkmError
from dkm_deploy.palette import Palette

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.onnx.decoding.encoding import Encoding
    from dkm_deploy.palette_spec import PaletteSpec


def encoding_of(name: str, tensor: TensorProto, spec: PaletteSpec, opset: int) -> Encoding:
    """The decoding that a weight will get, of other values: good for its names and sizes.

    Raises:
        DkmError: the weight's type cannot have it.
    """
    narrow = is_bfloat16(tensor)
    if narrow and spec.per_channel_scale:
        raise DkmError(f"{name}: bfloat16 would round what a per_channel_scale gives; leave it out")
    made = encode(name, stand_in(tensor, spec), opset=opset, elements=not narrow)
    for value in made.tensors:
        if narrow and name_of(value) == f"{name}.lut":
            narrow_lut(value)
    return made


def stand_in(tensor: TensorProto, spec: PaletteSpec) -> Palette:
    """A palette as ``spec`` gives for a weight, but all zeros."""
    wide = np.dtype(np.float32) if is_bfloat16(tensor) else None
    dtype = wide or helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return zero_palette(tensor.dims, spec, dtype)


def too_small(
    tensors: Mapping[str, TensorProto], planned: Mapping[str, Encoding]
) -> dict[str, str]:
    """The weights that a palette does not make smaller, and the sizes.

    The largest comes first, and bears the bytes of what the decodings of others share with it.
    """
    dense: dict[str, str] = {}
    there: set[str] = set()
    for name in sorted(planned, key=lambda name: -stored_bytes(tensors[name])):
        sizes = _sizes(planned[name])
        size = sum(sizes[part] for part in sizes.keys() - there)
        dense_size = stored_bytes(tensors[name])
        if size < dense_size:
            there.update(sizes)
        else:
            elements = prod(tensors[name].dims)
            dense[name] = f"{elements} values: {dense_size} bytes now, {size} as a palette"
    return {name: dense[name] for name in planned if name in dense}


def cluster_tensor(name: str, tensor: TensorProto, spec: PaletteSpec) -> Palette:
    """The palette of a weight. Raises DkmError if its values cannot be read."""
    array = array_of(name, tensor)
    if is_bfloat16(tensor):  # numpy's is none that torch knows
        weight = torch.from_numpy(array.astype(np.float32)).bfloat16()
    else:
        weight = torch.from_numpy(array.copy())  # torch must not see a read-only array
    try:
        return cluster(weight, spec)
    except DkmError as error:
        raise DkmError(f"{name}: {error}") from error


def is_bfloat16(tensor: TensorProto) -> bool:
    """Whether a tensor of a file is of bfloat16."""
    return tensor.data_type == TensorProto.BFLOAT16


def _sizes(encoding: Encoding) -> dict[str, int]:
    """Bytes of each node, by the value that it makes, and of each tensor."""
    sizes = {
        name_of(node.outputs[0]): ir.serde.serialize_node(node).ByteSize()
        for node in encoding.nodes
    }
    for value in encoding.tensors:
        if value.const_value is not None:
            sizes[name_of(value)] = ir.serde.serialize_tensor(value.const_value).ByteSize()
    return sizes
