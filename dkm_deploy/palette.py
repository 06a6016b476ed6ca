"""Palette: the one record that clustering makes and that every converter, reader and check uses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dkm_deploy._support.argument_checks import integer
from dkm_deploy.errors import DkmError

_LUT_DTYPES = (np.float16, np.float32, np.float64)


@dataclass(frozen=True, eq=False)
class Palette:
    """One weight as lookup tables (LUTs) and indices into them.

    The layout is that of Core ML's ``constexpr_lut_to_dense`` (iOS 18) and Core AI's
    ``lut_to_dense``. The arrays are read-only.

    Attributes:
        indices: uint8, the shape of the weight with dimension ``axis`` divided by ``cluster_dim``.
        lut: float16, float32 or float64, shape ``(g0 .. gK-1, 2**bits, cluster_dim)``: one number
            of groups for each dimension of the weight. Each divides that dimension of ``indices``.
        axis: dimension of the weight that a LUT entry of ``cluster_dim`` values fills. If
            ``cluster_dim`` is 1 it has no meaning and is set to the grouped dimension, else to 0.
        bits: bits of an index, 1 to 8. 0 means that it is read from the shape of the LUT.
        scale: dtype of the LUT, shape ``(channels, 1, 1 ..)``: the decoded weight is multiplied by
            it, channel by channel along dimension 0. None is no scale.

    Raises:
        DkmError: the arrays do not fit together, an index lies outside its LUT, or the LUT or the
            scale holds NaN or infinity.

    Example:
        >>> indices = np.array([[0, 1], [3, 3]], np.uint8)
        >>> lut = np.array([-1, 0, 0.5, 1], np.float32).reshape(1, 1, 4, 1)
        >>> palette = dkm.Palette(indices, lut)
        >>> palette.bits, palette.shape
        (2, (2, 2))
    """

    indices: NDArray[np.uint8]
    lut: NDArray[np.floating]
    axis: int = 0
    bits: int = 0
    scale: NDArray[np.floating] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "axis", integer("axis", self.axis, 0))
        object.__setattr__(self, "bits", integer("bits", self.bits, 0, 8))
        _check(self.indices, self.lut, self.axis)
        bits = self.lut.shape[-2].bit_length() - 1
        if self.bits not in (0, bits):
            raise DkmError(f"bits is {self.bits}, but a LUT of {2**bits} entries has {bits} bits")
        object.__setattr__(self, "bits", bits)
        if self.cluster_dim == 1:
            grouped = (dim for dim, count in enumerate(self.groups) if count > 1)
            object.__setattr__(self, "axis", next(grouped, 0))
        if self.scale is not None:
            _check_scale(self.scale, self.lut, self.shape)
        for name in ("indices", "lut", "scale"):
            array = getattr(self, name)
            if array is not None:
                view = array.view()
                view.flags.writeable = False
                object.__setattr__(self, name, view)

    def __eq__(self, other: object) -> bool:
        """Bit-for-bit equality: same layout and indices, same bytes and dtype of LUT and scale."""
        if not isinstance(other, Palette):
            return NotImplemented
        return (
            (self.axis, self.bits, self.lut.dtype) == (other.axis, other.bits, other.lut.dtype)
            and self.lut.shape == other.lut.shape
            and np.array_equal(self.indices, other.indices)
            and self.lut.tobytes() == other.lut.tobytes()
            and (self.scale is None) == (other.scale is None)
            and self._scale_bytes() == other._scale_bytes()
        )

    __hash__ = None  # type: ignore[assignment]  # arrays have no cheap hash

    def __repr__(self) -> str:
        scaled = "" if self.scale is None else ", scale=per channel"
        return (
            f"Palette(shape={self.shape}, bits={self.bits}, cluster_dim={self.cluster_dim}, "
            f"axis={self.axis}, groups={self.groups}, lut={self.lut.dtype}{scaled})"
        )

    def _scale_bytes(self) -> bytes:
        return b"" if self.scale is None else self.scale.tobytes()

    @property
    def cluster_dim(self) -> int:
        """Values in one LUT entry; more than 1 is vector palettization."""
        return int(self.lut.shape[-1])

    @property
    def groups(self) -> tuple[int, ...]:
        """LUTs along each dimension of the weight; all ones is per tensor."""
        return self.lut.shape[:-2]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the dense weight."""
        shape = list(self.indices.shape)
        shape[self.axis] *= self.cluster_dim
        return tuple(shape)

    @property
    def size(self) -> int:
        """Number of weights."""
        return self.indices.size * self.cluster_dim

    @property
    def lut_bytes(self) -> int:
        """Bytes of the LUTs and of the scale."""
        return self.lut.nbytes + (0 if self.scale is None else self.scale.nbytes)

    @property
    def bits_per_weight(self) -> float:
        """Bits of indices, LUTs and scale together, for each weight."""
        return (self.indices.size * self.bits + self.lut_bytes * 8) / self.size

    def decode(self) -> NDArray[np.floating]:
        """Decode the dense weight: LUT values times the scale.

        Returns:
            An array of shape ``self.shape`` and the dtype of the LUT.

        Example:
            >>> lut = np.array([-1, 0, 0.5, 1], np.float32).reshape(1, 1, 4, 1)
            >>> palette = dkm.Palette(np.array([[0, 1], [3, 3]], np.uint8), lut)
            >>> palette.decode().tolist()
            [[-1.0, 0.0], [1.0, 1.0]]
        """
        rows = lut_rows(self.indices, self.groups, 1 << self.bits)
        vectors = self.lut.reshape(-1, self.cluster_dim)[rows]
        dense = np.moveaxis(vectors, -1, self.axis + 1).reshape(self.shape)
        return dense if self.scale is None else dense * self.scale

    def astype(self, dtype: type[np.floating] | np.dtype[np.floating]) -> Palette:
        """Round the LUT and the scale to another dtype.

        Args:
            dtype: float16, float32 or float64.

        Returns:
            A palette with the same indices.

        Raises:
            DkmError: ``dtype`` is another one, or a value overflows in it.

        Example:
            >>> lut = np.array([-1, 0, 0.5, 1], np.float32).reshape(1, 1, 4, 1)
            >>> palette = dkm.Palette(np.array([[0, 1], [3, 3]], np.uint8), lut)
            >>> palette.astype(np.float16).lut_bytes
            8
        """
        with np.errstate(over="ignore"):  # an overflow shows as infinity, which is refused
            scale = None if self.scale is None else self.scale.astype(dtype)
            return Palette(self.indices, self.lut.astype(dtype), self.axis, scale=scale)

    def widen(self, bits: int) -> Palette:
        """Store the same weights with more bits per index, for targets that lack a width.

        The decoded weight does not change: unused entries of zero are appended to each LUT.

        Args:
            bits: bits of an index, at least those of this palette and at most 8.

        Returns:
            A palette with the same indices and longer LUTs.

        Raises:
            DkmError: ``bits`` is out of range.

        Example:
            >>> lut = np.array([-1, 0, 0.5, 1], np.float32).reshape(1, 1, 4, 1)
            >>> palette = dkm.Palette(np.array([[0, 1], [3, 3]], np.uint8), lut)
            >>> palette.widen(4).lut.shape
            (1, 1, 16, 1)
        """
        if not self.bits <= bits <= 8:
            raise DkmError(f"{self.bits} bits cannot be widened to {bits} bits")
        missing = (1 << bits) - (1 << self.bits)
        padding = [(0, 0)] * len(self.groups) + [(0, missing), (0, 0)]
        return Palette(self.indices, np.pad(self.lut, padding), self.axis, scale=self.scale)

    def scale_in_luts(self) -> Palette:
        """Multiply the LUTs by the scale, for targets that have LUTs of channels but no scales.

        The values are those of :meth:`decode`: each product is rounded once.

        Returns:
            A palette with the same indices, no scale, and LUTs for each channel; for each
            ``cluster_dim`` channels if a LUT entry fills that many. Without a scale, the same one.

        Example:
            >>> lut = np.array([-1, 0, 0.5, 1], np.float32).reshape(1, 1, 4, 1)
            >>> scale = np.array([[1], [10]], np.float32)
            >>> palette = dkm.Palette(np.array([[0, 1], [3, 3]], np.uint8), lut, scale=scale)
            >>> palette.scale_in_luts().lut[1].ravel().tolist()
            [-10.0, 0.0, 5.0, 10.0]
        """
        if self.scale is None:
            return self
        rows = self.indices.shape[0]
        filled = self.cluster_dim if self.axis == 0 else 1  # channels of a LUT entry
        scale = self.scale.reshape(rows, *[1] * self.indices.ndim, filled)
        lut = np.repeat(self.lut, rows // self.groups[0], axis=0)
        return Palette(self.indices, lut * scale, self.axis)

    def transpose(self) -> Palette:
        """Transpose a matrix; it must have no scale, because scales belong to rows.

        Returns:
            The palette of the transposed matrix.

        Example:
            >>> lut = np.array([-1, 0, 0.5, 1], np.float32).reshape(1, 1, 4, 1)
            >>> palette = dkm.Palette(np.array([[0, 1], [3, 3]], np.uint8), lut)
            >>> palette.transpose().decode().tolist()
            [[-1.0, 1.0], [0.0, 1.0]]
        """
        indices = np.ascontiguousarray(self.indices.T)
        return Palette(indices, np.ascontiguousarray(self.lut.swapaxes(0, 1)), 1 - self.axis)


def difference(frozen: Palette, stored: Palette) -> str | None:
    """How the palette decoded from a file differs from the frozen one, or None if it does not.

    Compared bit for bit, with the frozen LUT and scale rounded to the dtype of the stored LUT, the
    LUT given the unused entries of the stored width, and the scale in the LUTs if the file has it
    nowhere else. Those are the only changes a target may make.
    """
    frozen = frozen.scale_in_luts() if stored.scale is None else frozen
    same = np.array_equal(frozen.indices, stored.indices)
    if not same and _is_transposed(frozen, stored):
        return "it is transposed: its first two dimensions are swapped"
    if frozen.shape != stored.shape:
        return f"shape {stored.shape} in place of {frozen.shape}"
    if _layout(frozen) != _layout(stored) or stored.bits < frozen.bits:
        return f"stored as {stored!r} in place of {frozen!r}"
    if not same:
        wrong = np.count_nonzero(frozen.indices != stored.indices)
        return f"{wrong} of {frozen.indices.size} indices differ"
    expected = frozen.astype(stored.lut.dtype).widen(stored.bits)
    if expected == stored:
        return None
    if expected.lut.tobytes() == stored.lut.tobytes():
        return "the scales of the channels differ"
    return _lut_difference(expected.lut, stored.lut)


def _is_transposed(frozen: Palette, stored: Palette) -> bool:
    """Whether the file holds the indices with the first two dimensions swapped."""
    return frozen.indices.ndim > 1 and np.array_equal(frozen.indices.swapaxes(0, 1), stored.indices)


def _lut_difference(expected: NDArray[np.floating], stored: NDArray[np.floating]) -> str:
    """How many values differ in their bits, and by how much."""
    bits = np.dtype(f"u{stored.dtype.itemsize}")
    wrong = np.count_nonzero(expected.view(bits) != stored.view(bits))
    gap = np.abs(expected.astype(np.float64) - stored).max()
    return f"LUT entries differ: {wrong} of {stored.size} {stored.dtype} values, by up to {gap:.3g}"


def _layout(palette: Palette) -> tuple[object, ...]:
    return palette.axis, palette.cluster_dim, palette.groups, palette.scale is None


def lut_rows(indices: NDArray[np.uint8], groups: tuple[int, ...], entries: int) -> NDArray[np.intp]:
    """Row of every index in the LUTs laid end to end: index + entries x group number.

    Args:
        indices: uint8, any shape.
        groups: LUTs along each dimension of ``indices``.
        entries: entries of one LUT.
    """
    rows = indices.astype(np.intp)
    stride = entries
    for dim in reversed(range(indices.ndim)):
        length, count = indices.shape[dim], groups[dim]
        if count > 1:
            offsets = np.arange(length) // (length // count) * stride
            rows += offsets.reshape([-1] + [1] * (indices.ndim - dim - 1))
        stride *= count
    return rows


def _check(indices: NDArray[np.uint8], lut: NDArray[np.floating], axis: int) -> None:
    for name, array in (("indices", indices), ("lut", lut)):
        if not isinstance(array, np.ndarray):
            raise DkmError(f"{name} is a {type(array).__name__}; give a numpy array")
    if indices.dtype != np.uint8:
        raise DkmError(f"indices are {indices.dtype}; a palette's indices are uint8")
    if lut.dtype not in _LUT_DTYPES:
        raise DkmError(f"the LUT is {lut.dtype}; a palette's LUT is float16, float32 or float64")
    if indices.ndim < 1 or lut.ndim != indices.ndim + 2:
        raise DkmError(
            f"indices of shape {indices.shape} need a LUT of rank {indices.ndim + 2}, "
            f"(groups.., 2**bits, cluster_dim); its shape is {lut.shape}"
        )
    if not 0 <= axis < indices.ndim:
        raise DkmError(f"axis is {axis}; the weight has dimensions 0 to {indices.ndim - 1}")
    entries = lut.shape[-2]
    if entries not in (2, 4, 8, 16, 32, 64, 128, 256):
        raise DkmError(f"the LUT has {entries} entries; it must have 2**bits, bits 1 to 8")
    if lut.shape[-1] < 1:
        raise DkmError("the LUT's entries are empty; cluster_dim is at least 1")
    if any(g < 1 or n % g for n, g in zip(indices.shape, lut.shape, strict=False)):
        raise DkmError(
            f"group counts {lut.shape[:-2]} do not divide the shape of the indices {indices.shape}"
        )
    if indices.size and int(indices.max()) >= entries:
        raise DkmError(f"index {int(indices.max())} points outside a LUT of {entries} entries")
    if not np.isfinite(lut).all():
        raise DkmError(f"the LUT holds NaN or infinity (dtype {lut.dtype})")


def _check_scale(
    scale: NDArray[np.floating], lut: NDArray[np.floating], shape: tuple[int, ...]
) -> None:
    if scale.dtype != lut.dtype:
        raise DkmError(f"the scale is {scale.dtype} and the LUT {lut.dtype}; both are of one dtype")
    expected = (shape[0], *[1] * (len(shape) - 1))
    if scale.shape != expected:
        raise DkmError(
            f"a scale of shape {scale.shape} does not fit a weight of shape {shape}; "
            f"it must be {expected}, one value a channel"
        )
    if not np.isfinite(scale).all():
        raise DkmError(f"the scale holds NaN or infinity (dtype {scale.dtype})")
