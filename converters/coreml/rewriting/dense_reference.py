"""The dense twin of a palettized package: what it was made from, with the palettes' weights.

The two differ in nothing but the decoding, so they compute the same.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.coreml.reading.read_palettes import read_palettes
from converters.coreml.rewriting.weights import Weight, find_weights
from converters.coreml.rewriting.write_with import check_no_links
from dkm_deploy.errors import DkmError
from dkm_deploy.formats.mlpackage.package import open_package
from dkm_deploy.palette import Palette


def write_twin(path: Path, palettes: Mapping[str, Palette], out: Path) -> None:
    """Write the package at ``path`` to ``out`` with decoded palettes in place of its weights.

    Raises:
        DkmError: the package is damaged, or a palette is of no weight in it.
    """
    package = open_package(path)
    check_no_links(package)
    found, own = find_weights(package).tensors, read_palettes(path)
    shutil.copytree(path, out, copy_function=shutil.copyfile)
    for name, palette in palettes.items():
        if own.get(name) == palette:
            continue  # another tool's, which stayed as it was
        weight = found.get(name)
        if weight is None or weight.shape != palette.shape:
            raise DkmError(
                f"{path}: it has no weight {name!r} of shape {palette.shape}, so it is not the "
                "model that was palettized"
            )
        copy = out / package.weight_file(weight.pointer[0]).relative_to(path)
        put_values(copy, weight, palette.decode())


def put_values(file: Path, weight: Weight, values: NDArray[Any]) -> None:
    """Write other values of a weight into a weight file, in place.

    Raises:
        DkmError: the weight has no place in a weight file.
    """
    blob = weight.constant.blob
    if blob is None:
        raise DkmError(f"{weight.name}: it lies in no weight file")
    with file.open("r+b") as stream:
        stream.seek(blob.start)
        stream.write(np.ascontiguousarray(values, weight.constant.type.dtype.numpy_name).tobytes())
