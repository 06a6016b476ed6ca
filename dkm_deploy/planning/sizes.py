"""Bytes of a file by what each weight becomes: measured on few files, predicted for all mixtures.

For each target the model is written once dense and once with palettes of each width. These files
tell how the target stores indices and LUTs, and so the bytes of every palette. What else a palette
adds (operations, headers, alignment) goes with its width, and is shared out evenly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from math import prod

from rich.console import Console

from dkm_deploy._support.measurement_cache import Cache, digest
from dkm_deploy._support.progress import track
from dkm_deploy._version import __version__
from dkm_deploy.clustering.layout import group_count
from dkm_deploy.conversion.plan_subject import FileSizes, Item, PlanSubject, Specs
from dkm_deploy.palette_spec import PaletteSpec, scaled_group_count
from dkm_deploy.planning.candidates import Candidates


@dataclass(frozen=True)
class Sizes:
    """Predicted bytes of a file: ``fixed``, and for each weight what it becomes."""

    fixed: float
    items: Mapping[Item, float]


@dataclass(frozen=True)
class _Layout:
    """How a target stores palettes of one width.

    Attributes:
        bits: of an index.
        lut_width: bytes of a LUT's value.
        has_scales: whether per-channel scales are beside the LUTs; if not, LUTs hold them.
    """

    bits: int
    lut_width: int
    has_scales: bool

    def payload(self, shape: tuple[int, ...], spec: PaletteSpec) -> int:
        """Bytes of the indices, the LUTs and the scale of a weight."""
        indices = prod(shape) // spec.cluster_dim
        in_luts = spec.per_channel_scale and not self.has_scales
        luts = scaled_group_count(shape, spec) if in_luts else group_count(shape, spec)
        scales = shape[0] if spec.per_channel_scale and self.has_scales else 0
        values = (luts << self.bits) * spec.cluster_dim + scales
        return -(-indices * self.bits // 8) + values * self.lut_width


class Scales:
    """Weighs files of a model, each of them once.

    Args:
        subject: the model.
        cache: of what was weighed before.
    """

    def __init__(self, subject: PlanSubject, cache: Cache) -> None:
        self.subject = subject
        self._cache = cache
        self._key = ("bytes", __version__, *subject.written_from)

    def weigh(self, target: str, specs: Specs) -> FileSizes:
        """The file that ``target`` writes with palettes of ``specs``, and the rest dense."""
        key = digest((*self._key, target, sorted(specs.items(), key=lambda item: item[0])))
        known = self._cache.take(key, FileSizes)
        if known is None:
            known = self.subject.weigh(target, specs)
            self._cache.put(key, asdict(known))
        return known


def predict_sizes(scales: Scales, target: str, candidates: Candidates, console: Console) -> Sizes:
    """The byte model of a target.

    Raises:
        DkmError: the model cannot be converted.
    """
    shapes = scales.subject.shapes
    counts = {name: prod(shape) for name, shape in shapes.items()}
    dense = scales.weigh(target, {})
    chosen = {bits: _mixture(candidates, bits) for bits in _widths(candidates)}
    files = {
        bits: scales.weigh(target, chosen[bits])
        for bits in track(list(chosen), f"weighing {target}", console)
    }
    value = _dense_width(dense, files.values(), counts)
    fixed = dense.total - value * sum(counts.values())
    has_scales = any(file.has_scales for file in files.values())
    items: dict[Item, float] = {(name, None): value * count for name, count in counts.items()}
    for bits, file in files.items():
        stored = max(file.widths.values())
        rest = value * sum(counts[name] for name in counts.keys() - chosen[bits].keys())
        made = chosen[bits].items()
        layout = _Layout(stored, file.lut_width, has_scales)
        payload = sum(layout.payload(shapes[n], s) for n, s in made)
        shared = (file.total - fixed - rest - payload) / len(made)
        for name, found in candidates.items():
            for spec in (spec for spec in found if spec.bits == bits):
                size = layout.payload(shapes[name], spec)
                items[name, spec] = size + shared
    return Sizes(fixed, items)


def _widths(candidates: Candidates) -> list[int]:
    return sorted({spec.bits for found in candidates.values() for spec in found})


def _mixture(candidates: Candidates, bits: int) -> dict[str, PaletteSpec]:
    """The candidates of a width, in turns, on all weights that they fit."""
    mixture = {}
    for turn, (name, found) in enumerate(candidates.items()):
        fitting = [spec for spec in found if spec.bits == bits]
        if fitting:
            mixture[name] = fitting[turn % len(fitting)]
    return mixture


def largest_of(models: Iterable[Sizes]) -> Sizes:
    """Bytes that no file of several targets exceeds."""
    models = list(models)
    items = {item: max(m.items[item] for m in models) for item in models[0].items}
    return Sizes(max(m.fixed for m in models), items)


def _dense_width(dense: FileSizes, files: Iterable[FileSizes], counts: Mapping[str, int]) -> float:
    """Bytes of a dense value, from the file in which palettes replace the most of them."""
    most = max(files, key=lambda file: sum(counts[name] for name in file.widths))
    return (dense.dense - most.dense) / sum(counts[name] for name in most.widths)
