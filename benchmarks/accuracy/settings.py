"""What is measured: each setting is a network, a way to its palettes, and what is asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import dkm_deploy as dkm
from benchmarks.accuracy.ways import Planned, Trained, Way

_EFFICIENTNET_BYTES = 18_608_032  # of its parameters as float32


@dataclass(frozen=True)
class Setting:
    """A way to files.

    Attributes:
        network: a key of ``TASKS`` in :mod:`benchmarks.accuracy.__main__`.
        way: how the palettes are made.
        smaller: how many times smaller than as float32 it shall be.
        whole: whether the whole file counts, or what it stores, its graph apart.
        score: of the test that it shall reach, in percent.
    """

    network: str
    way: Way
    smaller: float
    whole: bool
    score: float

    def times_smaller(self, dense_bytes: int, size_bytes: int, stored_bytes: int) -> str:
        """Of a file, with what is counted."""
        ratio = dense_bytes / (size_bytes if self.whole else stored_bytes)
        return f"{ratio:.2f} by {'the file' if self.whole else 'what it stores'}"


def resnet20(
    first: dkm.PaletteSpec, second: dkm.PaletteSpec, third: dkm.PaletteSpec, ends: int | None
) -> dkm.Recipe:
    """A palette for each of the three stages; bits of the first and the last layer."""
    stages = (first, second, third)
    rules = [dkm.Rule(f"layer{n}.*.conv?.weight", spec) for n, spec in enumerate(stages, 1)]
    return dkm.Recipe(None if ends is None else dkm.PaletteSpec(ends), rules)


def vectors(bits: int, values: int) -> dkm.PaletteSpec:
    """LUT entries along the input channels."""
    return dkm.PaletteSpec(bits, cluster_dim=values, axis=1)


def scalars(bits: int) -> dkm.PaletteSpec:
    """LUT entries of one value."""
    return dkm.PaletteSpec(bits)


_CANDIDATES = (
    *(scalars(bits) for bits in (1, 2, 3, 4, 5, 6, 8)),
    *(dkm.PaletteSpec(bits, group_size=16) for bits in (2, 3, 4)),
)

SETTINGS: Mapping[str, Setting] = {
    # Small layers get more bits: after an epoch 0.5 points over 3 bits for 4 weights throughout.
    "resnet20-35x": Setting(
        "resnet20",
        Trained(resnet20(scalars(3), vectors(4, 4), vectors(4, 8), 5), epochs=14, rate=0.08),
        smaller=35.0,
        whole=False,
        score=90.7,
    ),
    "efficientnet-8x": Setting(
        "efficientnet",
        Planned(_EFFICIENTNET_BYTES // 8, _CANDIDATES),
        smaller=8.0,
        whole=True,
        score=67.6,
    ),
}
