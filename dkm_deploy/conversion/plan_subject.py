"""What a plan must know of a model, whether it is a module or a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from dkm_deploy.formats.ledger import Ledger
from dkm_deploy.palette import Palette
from dkm_deploy.palette_spec import PaletteSpec

Specs = Mapping[str, PaletteSpec]
Item = tuple[str, PaletteSpec | None]
"""A weight and what it becomes; None is dense."""


@dataclass(frozen=True)
class FileSizes:
    """What a file tells.

    Attributes:
        total: bytes of the file.
        dense: bytes of dense weights.
        widths: bits of an index as the target stores them, by the name of the weight.
        lut_width: bytes of a LUT's value; 0 in a file without palettes.
        has_scales: whether a palette has a per-channel scale; where none has, LUTs hold them.
    """

    total: int
    dense: int
    widths: Mapping[str, int]
    lut_width: int
    has_scales: bool

    @classmethod
    def of(cls, ledger: Ledger, palettes: Mapping[str, Palette]) -> FileSizes:
        """By the ledger of a file and the palettes that it holds."""
        widths = {name: palette.bits for name, palette in palettes.items()}
        lut_width = next((p.lut.itemsize for p in palettes.values()), 0)
        scaled = any(palette.scale is not None for palette in palettes.values())
        return cls(ledger.total_bytes, ledger.by_kind()["dense"], widths, lut_width, scaled)


class PlanSubject(Protocol):
    """A model to plan for. What it gives is the same each time, so that it can be kept."""

    shapes: Mapping[str, tuple[int, ...]]
    """Of the weights that may get a palette, by the name that a recipe knows them by."""

    written_from: Sequence[object]
    """What the bytes of its files depend on, beside target and palettes; for a digest."""

    measured_on: Sequence[object]
    """What losses depend on, beside weight and palette; for a digest."""

    def holds(self, name: str, spec: PaletteSpec, target: str) -> bool:
        """Whether a file of ``target`` can have this palette for the weight called ``name``."""
        ...

    def losses(self, spec: PaletteSpec, names: Sequence[str]) -> Iterator[tuple[str, float]]:
        """What a palette of ``spec`` on each of these weights costs the outputs.

        All other weights are as they were; infinity is never worth its bytes.
        """
        ...

    def weigh(self, target: str, specs: Specs) -> FileSizes:
        """The file that ``target`` writes with palettes of ``specs``, and the rest dense."""
        ...
