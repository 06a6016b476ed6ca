"""What several targets say of storing a palette: in a wider type, or not at all in float16."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from dkm_deploy.errors import DkmError
from dkm_deploy.palette import Palette


def widened_notes(
    palettes: Mapping[str, Palette], stored_bits: Callable[[int], int], target: str
) -> Iterator[str]:
    """A line for each width that a target lacks.

    Args:
        palettes: by parameter name.
        stored_bits: the width that holds so many bits.
        target: what to call it.
    """
    names = defaultdict(list)
    for name, palette in palettes.items():
        names[palette.bits].append(name)
    for bits, held in sorted(names.items()):
        if stored_bits(bits) != bits:
            yield (
                f"{bits} bits are stored as {stored_bits(bits)}, the next width that {target} has, "
                f"and the weights are the same: {names_in_short(held)}"
            )


def names_in_short(names: Sequence[str], shown: int = 5) -> str:
    """The first of ``names``, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def check_float16(palettes: Mapping[str, Palette]) -> None:
    """Raise DkmError for a LUT that float16 would make infinity of."""
    most = float(np.finfo(np.float16).max)
    for name, palette in palettes.items():
        largest = float(np.abs(palette.lut).max())
        if largest > most:
            raise DkmError(
                f"{name}: a weight of {largest:g} is beyond float16, whose largest is {most:g}; "
                'convert with compute_precision="float32"'
            )
