"""Whether the sparse form of a palette takes fewer bytes than the dense one: zeros left out.

Core ML has it from iOS 18 on, as ``constexpr_lut_to_sparse``: a mask of one bit an index, and the
indices of what is not zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.coreml.rewriting.weight_file import blob_size
from dkm_deploy.formats.mlpackage.sparse_palette import leave_out, zero_entry
from dkm_deploy.packing import packed_size
from dkm_deploy.palette import Palette

_PROGRAM = 600  # bytes, at most, that the further operation and its values take in the program


@dataclass(frozen=True)
class SparseIndices:
    """The indices of a palette without those of its entry of zeros.

    Attributes:
        mask: uint8, 1 where there is an index, of the shape of the indices.
        nonzero: uint8, ``(n,)``: these indices in C order.
    """

    mask: NDArray[Any]
    nonzero: NDArray[np.uint8]


def sparse_indices(palette: Palette) -> SparseIndices | None:
    """The sparse form of a palette; None if it takes no fewer bytes, or nothing would be left."""
    zero = zero_entry(palette.lut)
    if zero is None:
        return None
    count = palette.indices.size
    kept = int(np.count_nonzero(palette.indices != zero))
    dense = blob_size(packed_size(count, palette.bits))
    sparse = blob_size(packed_size(count, 1)) + blob_size(packed_size(kept, palette.bits))
    if not kept or sparse + _PROGRAM >= dense:
        return None
    return SparseIndices(*leave_out(palette.indices, zero))
