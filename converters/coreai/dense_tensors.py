"""The dense tensors of a Core AI asset, one at a time: what no palette is decoded from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from converters.coreai.read_palettes import contents
from dkm_deploy.errors import DkmError
from dkm_deploy.formats.aimodel.byte_cursor import DamagedError
from dkm_deploy.formats.aimodel.constants import Constant
from dkm_deploy.formats.dense_tensor import DenseTensor

_NUMBERED = re.compile(r"resource_\d+")  # what coreai-torch calls them


def read_dense(path: Path) -> Iterator[DenseTensor]:
    """The dense tensors of an asset. Those that coreai-torch writes have no names.

    Raises:
        DkmError: the asset is damaged.
    """
    held = contents(path)
    parts = [part for s in held.sites for part in (s.indices, s.lut, s.axis, s.scale)]
    seen = {part.start for part in parts if part is not None}
    for tensor in held.constants:
        if tensor.element.kind == "float" and tensor.start not in seen:
            seen.add(tensor.start)
            yield _dense(tensor, path)


def _dense(tensor: Constant, path: Path) -> DenseTensor:
    def read() -> NDArray[Any]:
        try:
            return tensor.floats()
        except DamagedError as error:
            raise DkmError(f"{path}: a constant cannot be read: {error}") from error

    key = "" if tensor.blob is None or _NUMBERED.fullmatch(tensor.blob.key) else tensor.blob.key
    return DenseTensor(key, len(tensor.data), read)
