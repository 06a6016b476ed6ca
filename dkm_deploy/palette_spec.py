"""The layout of a palette: what a recipe asks for, and the nearest that a weight can have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dkm_deploy._support.argument_checks import integer, short, truth, usage
from dkm_deploy.errors import ArgumentError
from dkm_deploy.palette import Palette


@dataclass(frozen=True)
class PaletteSpec:
    """Layout of a palette: bits, granularity and the length of a LUT entry.

    Attributes:
        bits: bits of an index, 1 to 8; a LUT has ``2**bits`` entries.
        cluster_dim: values in one LUT entry, 1 to 16; more than 1 is vector palettization.
        axis: dimension of the weight that a LUT entry fills and whose channels are grouped, 0 to 7.
        group_size: number of channels along ``axis`` that share a LUT; None is one LUT for the
            whole weight.
        per_channel_scale: divide each channel by its largest absolute value before clustering, and
            multiply the decoded weight by that value. Channels of very different magnitude can then
            share a LUT. Channels are those of dimension 0, whatever ``axis`` is: outputs of linear
            and convolution layers, rows of an embedding, inputs of a transposed convolution and of
            a matrix that an ONNX file stores as (inputs, outputs). A channel of zeros has the scale
            0 and stays zeros.
        keep_zeros: reserve one entry of the LUT for exactly 0, for the weights that are 0 and no
            others, so that a pruned model stays pruned, in training too. None does so for a weight
            of which at least half is zeros. With ``cluster_dim`` more than 1, vectors of zeros are
            kept.

    Raises:
        DkmError: a value is out of range.

    Example:
        Per tensor: one LUT for the whole weight. A LUT tensor has the shape
        ``(groups along each dimension .., 2**bits, cluster_dim)``.

        >>> model = nn.Linear(8, 4)  # a weight of shape (4, 8)
        >>> spec = dkm.PaletteSpec(bits=2)
        >>> dkm.palettes(dkm.palettize(model, spec))["weight"].lut.shape
        (1, 1, 4, 1)

        Grouped channels: one LUT for every two output channels.

        >>> spec = dkm.PaletteSpec(bits=2, group_size=2)
        >>> dkm.palettes(dkm.palettize(model, spec))["weight"].lut.shape
        (2, 1, 4, 1)

        Vectors: each LUT entry holds two weights that are neighbours along ``axis``.

        >>> spec = dkm.PaletteSpec(bits=2, cluster_dim=2, axis=1)
        >>> dkm.palettes(dkm.palettize(model, spec))["weight"].lut.shape
        (1, 1, 4, 2)
    """

    bits: int = 4
    cluster_dim: int = 1
    axis: int = 0
    group_size: int | None = None
    per_channel_scale: bool = False
    keep_zeros: bool | None = None

    @usage("dkm.PaletteSpec(bits=4, group_size=16)")
    def __post_init__(self) -> None:
        spans = {"bits": (1, 8), "cluster_dim": (1, 16), "axis": (0, 7), "group_size": (1, None)}
        for name, (low, high) in spans.items():
            value = getattr(self, name)
            if name != "group_size" or value is not None:
                object.__setattr__(self, name, integer(name, value, low, high))
        truth("per_channel_scale", self.per_channel_scale)
        if self.keep_zeros is not None:
            truth("keep_zeros", self.keep_zeros)

    @classmethod
    def of(cls, value: Any, what: str = "spec") -> PaletteSpec:
        """Convert a number of bits to a spec; a spec is returned unchanged.

        Args:
            value: a ``PaletteSpec``, or an integer number of bits, 1 to 8.
            what: name of the argument in error messages.

        Returns:
            A spec.

        Raises:
            DkmError: ``value`` is neither, or is out of range.

        Example:
            >>> dkm.PaletteSpec.of(4) == dkm.PaletteSpec(bits=4)
            True
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, (bool, float, str)) or not hasattr(value, "__index__"):
            raise ArgumentError(f"{what} is {short(value)}; give a dkm.PaletteSpec, or bits")
        return cls(value)

    def refuse(self, shape: Sequence[int]) -> str | None:
        """Check whether a weight can have this layout.

        Args:
            shape: shape of the weight.

        Returns:
            The reason why it cannot, or None if it can.

        Example:
            >>> dkm.PaletteSpec(bits=4, group_size=3).refuse((4, 8))
            'group_size 3 does not divide its 4 channels'
        """
        if self.axis >= len(shape):
            return f"axis is {self.axis}, but its shape is {tuple(shape)}"
        channels = shape[self.axis]
        if channels % self.cluster_dim:
            return f"cluster_dim {self.cluster_dim} does not divide its {channels} channels"
        if self.group_size is None:
            return None
        if channels % self.group_size:
            return f"group_size {self.group_size} does not divide its {channels} channels"
        if self.group_size % self.cluster_dim:
            return f"cluster_dim {self.cluster_dim} does not divide group_size {self.group_size}"
        return None


def spec_of(palette: Palette) -> PaletteSpec:
    """The spec that gives palettes of this layout."""
    groups = palette.groups[palette.axis]
    size = None if groups == 1 else palette.shape[palette.axis] // groups
    scaled = palette.scale is not None
    return PaletteSpec(palette.bits, palette.cluster_dim, palette.axis, size, scaled)


def scaled_group_count(shape: Sequence[int], spec: PaletteSpec) -> int:
    """LUTs of a weight where per-channel scales are in them: one a channel, or a row of vectors.

    See :meth:`dkm_deploy.Palette.scale_in_luts`.
    """
    if spec.axis == 0:
        return shape[0] // spec.cluster_dim
    return shape[0] * (1 if spec.group_size is None else shape[spec.axis] // spec.group_size)


def nearest_spec(spec: PaletteSpec, shape: Sequence[int]) -> tuple[PaletteSpec, str]:
    """The layout nearest to ``spec`` that a weight of this shape can have.

    Of sizes that divide its channels, that is the one with the ratio nearest to 1 for
    ``group_size``, and the largest below for ``cluster_dim``. A group of all channels is one LUT.

    Args:
        spec: the layout that was asked for; its bits and its scale are kept.
        shape: of rank 1 or more, without dimensions of 0.

    Returns:
        The layout, and what was changed and why; empty if nothing was.
    """
    refusal = spec.refuse(shape)
    if refusal is None:
        return spec, ""
    axis = min(spec.axis, len(shape) - 1)
    channels = shape[axis]
    dim = max(d for d in range(1, spec.cluster_dim + 1) if channels % d == 0)
    found = replace(spec, axis=axis, cluster_dim=dim, group_size=None)
    if spec.group_size is not None:
        wanted = spec.group_size
        sizes = [size for size in range(dim, channels + 1, dim) if channels % size == 0]
        size = min(sizes, key=lambda size: max(size / wanted, wanted / size))
        found = replace(found, group_size=size if size < channels else None)
    return found, f"{refusal}; it has {_differences(spec, found)}"


def _differences(asked: PaletteSpec, found: PaletteSpec) -> str:
    changed = [
        f"{name} {getattr(found, name)}"
        for name in ("axis", "cluster_dim", "group_size")
        if getattr(asked, name) != getattr(found, name) and getattr(found, name) is not None
    ]
    if asked.group_size is not None and found.group_size is None:
        changed.append("one LUT")
    return ", ".join(changed)
