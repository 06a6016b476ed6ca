"""The dense twin of a palettized file: what it was made from, its weights those of the palettes.

The two differ in nothing but the decoding, so they compute the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import helper, numpy_helper

from converters.onnx.graph.tensors import graph_values
from converters.onnx.rewriting.palettize import save_model
from converters.onnx.rewriting.source import load_source
from dkm_deploy.errors import DkmError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dkm_deploy.palette import Palette


def write_twin(path: Path, palettes: Mapping[str, Palette], out: Path) -> None:
    """Write the model at ``path`` to ``out`` with decoded palettes in place of its weights.

    Raises:
        DkmError: the file is damaged or not ONNX, a palette is of no weight in it, or the result
            is larger than 2 GiB.
    """
    model = load_source(path).model
    held = {each.name: each for each in graph_values(model).held}
    for name, palette in palettes.items():
        tensor = held[name].tensor if name in held else None
        if tensor is None or tuple(tensor.dims) != palette.shape:
            raise DkmError(
                f"{path}: it has no weight {name!r} of shape {palette.shape}, so it is not the "
                "model that was palettized"
            )
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        decoded = palette.decode().astype(dtype)
        tensor.CopyFrom(numpy_helper.from_array(decoded, tensor.name))
    save_model(model, out)
