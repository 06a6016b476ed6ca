"""Pack n-bit indices into bytes and back: one LSB-first bit stream, elements straddle bytes.

This is the layout of Core ML's sub-byte blobs and of our checkpoints. Eight indices of n bits fill
exactly n bytes, so the work is done on words of eight indices: no loop over elements, no table.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dkm_deploy.errors import DkmError

_LANES = 8


def packed_size(count: int, bits: int) -> int:
    """Bytes that ``count`` indices of ``bits`` bits fill: ``ceil(count * bits / 8)``."""
    _check_bits(bits)
    return -(-count * bits // 8)


def pack(indices: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Pack uint8 indices of any shape, read in C order, into ``packed_size`` bytes.

    Raises:
        DkmError: ``bits`` is not in 1..8, or an index needs more than ``bits`` bits.
    """
    _check_bits(bits)
    flat = np.ascontiguousarray(indices, dtype=np.uint8).reshape(-1)
    if flat.size and int(flat.max()) >> bits:
        raise DkmError(f"index {int(flat.max())} does not fit in {bits} bits")
    if bits == 8:
        return flat.copy()
    lanes = np.zeros((-(-flat.size // _LANES), _LANES), np.uint8)
    lanes.reshape(-1)[: flat.size] = flat
    words = np.zeros(len(lanes), "<u8")
    for lane in range(_LANES):
        words |= lanes[:, lane].astype("<u8") << np.uint64(bits * lane)
    stream = words.view(np.uint8).reshape(-1, 8)[:, :bits]
    return np.ascontiguousarray(stream).reshape(-1)[: packed_size(flat.size, bits)]


def unpack(data: NDArray[np.uint8] | bytes, bits: int, count: int) -> NDArray[np.uint8]:
    """Read ``count`` indices of ``bits`` bits from a bit stream; the inverse of :func:`pack`.

    Raises:
        DkmError: ``bits`` is not in 1..8, or ``data`` is not exactly ``packed_size`` bytes long.
    """
    stream = np.frombuffer(data, np.uint8)
    if stream.size != packed_size(count, bits):
        raise DkmError(
            f"{count} indices of {bits} bits fill {packed_size(count, bits)} bytes, "
            f"but {stream.size} bytes are given"
        )
    if bits == 8:
        return stream.copy()
    rows = np.zeros((-(-count // _LANES), 8), np.uint8)
    padded = np.zeros(len(rows) * bits, np.uint8)
    padded[: stream.size] = stream
    rows[:, :bits] = padded.reshape(-1, bits)
    words = rows.reshape(-1).view("<u8")
    lanes = np.empty((len(rows), _LANES), np.uint8)
    mask = np.uint64((1 << bits) - 1)
    for lane in range(_LANES):
        lanes[:, lane] = (words >> np.uint64(bits * lane)) & mask
    return lanes.reshape(-1)[:count].copy()


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= 8:
        raise DkmError(f"bits is {bits}; an index has 1 to 8 bits")
