"""The palettized weights of a model: how each is laid out, used and distributed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from glob import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from dkm_deploy.assignment import not_a_weight
from dkm_deploy.nn_utils.weights import weights
from dkm_deploy.palette import Palette
from dkm_deploy.palette_spec import PaletteSpec, spec_of
from dkm_deploy.recipe import Recipe
from dkm_deploy.rule import Rule

_BINS = 48


@dataclass(frozen=True)
class Layer:
    """One palettized weight of the reference: its shape, widths, and how the indices are used.

    ``uses`` counts the indices that point to each entry, over all LUTs of the weight.
    """

    name: str
    shape: tuple[int, ...]
    bits: int
    cluster_dim: int
    groups: int
    bits_per_weight: float
    used_entries: int
    entropy_bits: float
    uses: tuple[int, ...] = ()


@dataclass(frozen=True)
class Histogram:
    """How the values of one weight are distributed.

    Attributes:
        low: lower edge of the first bin, in the weight's unit.
        high: upper edge of the last; all bins are as wide.
        original: weights of the original in each bin; empty if it is not at hand.
        palettized: weights in each bin once palettized.
        centroids: values of the LUT, entry by entry; empty where there are several LUTs, vectors
            or scales, for which they are not the weight's values.
    """

    low: float
    high: float
    original: tuple[int, ...]
    palettized: tuple[int, ...]
    centroids: tuple[float, ...]


def layer(name: str, palette: Palette) -> Layer:
    """What is told of one palette."""
    counts = np.bincount(palette.indices.ravel(), minlength=1 << palette.bits)
    shares = counts[counts > 0] / counts.sum()
    return Layer(
        name=name,
        shape=palette.shape,
        bits=palette.bits,
        cluster_dim=palette.cluster_dim,
        groups=int(np.prod(palette.groups)),
        bits_per_weight=palette.bits_per_weight,
        used_entries=int(np.count_nonzero(counts)),
        entropy_bits=float(-(shares * np.log2(shares)).sum()) + 0.0,
        uses=tuple(counts.tolist()),
    )


def histograms(found: Mapping[str, Palette], original: nn.Module | None) -> dict[str, Histogram]:
    """A histogram of each palettized weight, beside the original's weight of that name."""
    before = {n: w.value for n, w in weights(original).items()} if original else {}
    return {
        name: _histogram(palette, _values(before.get(name), palette.shape))
        for name, palette in found.items()
    }


def recipe_of(found: Mapping[str, Palette], model: nn.Module) -> Recipe:
    """The recipe that lays palettes out like those of ``model``, as short as it gets."""
    specs = {name: spec_of(palette) for name, palette in found.items()}
    sizes: dict[PaletteSpec, int] = {}
    for name, spec in specs.items():
        sizes[spec] = sizes.get(spec, 0) + found[name].size
    default = max(sizes, key=lambda spec: sizes[spec]) if sizes else None
    rules = [Rule(escape(name), spec) for name, spec in specs.items() if spec != default]
    dense = [n for n, w in weights(model).items() if not not_a_weight(w.value)]
    skips = [Rule(escape(name), skip=True) for name in dense] if default else []
    return Recipe(default, [*rules, *skips])


def _histogram(palette: Palette, original: NDArray[Any]) -> Histogram:
    decoded = palette.decode().ravel()
    plain = palette.lut.size == 1 << palette.bits and palette.scale is None
    ends = [(part.min(), part.max()) for part in (decoded, original) if part.size]
    low, high = float(min(a for a, _ in ends)), float(max(b for _, b in ends))
    if low == high:
        low, high = low - 0.5, high + 0.5
    return Histogram(
        low=low,
        high=high,
        original=_counts(original, low, high) if original.size else (),
        palettized=_counts(decoded, low, high),
        centroids=tuple(palette.lut.ravel().tolist()) if plain else (),
    )


def _values(weight: Tensor | None, shape: tuple[int, ...]) -> NDArray[Any]:
    """The finite values of the original's weight; none if there is no such weight."""
    if weight is None or tuple(weight.shape) != shape:
        return np.empty(0)
    values = weight.detach().float().cpu().numpy().ravel()
    finite: NDArray[Any] = values[np.isfinite(values)]
    return finite


def _counts(values: NDArray[Any], low: float, high: float) -> tuple[int, ...]:
    return tuple(np.histogram(values, _BINS, (low, high))[0].tolist())
