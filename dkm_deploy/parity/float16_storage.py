"""Whether a file stores weights in float16, whatever it computes in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dkm_deploy.formats.dense_tensor import DenseReader
from dkm_deploy.palette import Palette


def stores_half(path: Path, reader: object, palettes: Mapping[str, Palette]) -> bool:
    """Whether a LUT or a dense tensor of a file is float16.

    Args:
        path: of the file.
        reader: of files of its kind; one that does not tell dense tensors tells LUTs alone.
        palettes: of the file.

    Raises:
        DkmError: a dense tensor cannot be read.
    """
    if any(palette.lut.dtype == np.float16 for palette in palettes.values()):
        return True
    if not isinstance(reader, DenseReader):
        return False
    return any(tensor.read().dtype == np.float16 for tensor in reader.read_dense(path))
