"""Bytes of a file by what each weight becomes: measured on few files, predicted for all mixtures.

For each target the model is written once dense and once with palettes of each width. These files
tell how the target stores indices and LUTs, and so the bytes of every palette. What else a palette
adds (operations, headers, alignment) goes with its width, and is shared out evenly.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from dkm_deploy._version import __version__
from dkm_deploy.cache import Cache, digest, tensor_digest
from dkm_deploy.clustering.layout import group_count, to_palette
from dkm_deploy.convert import convert
from dkm_deploy.export import Inputs
from dkm_deploy.palette import Palette
from dkm_deploy.planning.candidates import Candidates
from dkm_deploy.progress import track
from dkm_deploy.recipe import PaletteSpec
from dkm_deploy.targets import Versioned, target_named
from dkm_deploy.training.freeze import with_palettes
from dkm_deploy.training.step import to_device

Specs = Mapping[str, PaletteSpec]
Item = tuple[str, PaletteSpec | None]
"""A weight and what it becomes; None is dense."""


@dataclass(frozen=True)
class Weighed:
    """What a file tells.

    Attributes:
        total: bytes of the file.
        dense: bytes of dense weights.
        widths: bits of an index as the target stores them, by the name of the weight.
        lut_width: bytes of a LUT's value; 0 in a file without palettes.
    """

    total: int
    dense: int
    widths: Mapping[str, int]
    lut_width: int


@dataclass(frozen=True)
class Sizes:
    """Predicted bytes of a file: ``fixed``, and for each weight what it becomes."""

    fixed: float
    items: Mapping[Item, float]


class Scales:
    """Weighs files of a model by writing them to a folder that is removed again.

    Args:
        model: a plain model.
        example: inputs for :func:`dkm_deploy.convert`.
        cache: of what was weighed before.
        fingerprint: of the model.
    """

    def __init__(self, model: nn.Module, example: Inputs, cache: Cache, fingerprint: str) -> None:
        self._model = copy.deepcopy(model).cpu()  # where files are made
        self._example, self._cache = to_device(example, torch.device("cpu")), cache
        self._key = ("bytes", __version__, fingerprint, tensor_digest(example))

    def weigh(self, target: str, specs: Specs) -> Weighed:
        """The file that ``target`` writes with palettes of ``specs``, and the rest dense."""
        key = digest((*self._key, target, sorted(specs.items(), key=lambda item: item[0])))
        if key not in self._cache:
            self._cache.put(key, asdict(self._written(target, specs)))
        return Weighed(**self._cache[key])

    def _written(self, target: str, specs: Specs) -> Weighed:
        frozen = with_palettes(self._model, _stand_ins(self._model, specs))
        kind, options = target_named(target), _options(target)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"model{kind.suffixes[0]}"
            ledger = convert(frozen, self._example, path, **options).ledger
            palettes = kind.read_palettes(path)
        widths = {name: palette.bits for name, palette in palettes.items()}
        lut_width = next((p.lut.itemsize for p in palettes.values()), 0)
        return Weighed(ledger.total_bytes, ledger.by_kind()["dense"], widths, lut_width)


def predicted(
    scales: Scales, target: str, model: nn.Module, candidates: Candidates, console: Console
) -> Sizes:
    """The byte model of a target.

    Raises:
        DkmError: the model cannot be converted.
    """
    shapes = {name: tuple(model.get_parameter(name).shape) for name in candidates}
    counts = {name: prod(shape) for name, shape in shapes.items()}
    dense = scales.weigh(target, {})
    chosen = {bits: _mixture(candidates, bits) for bits in _widths(candidates)}
    files = {
        bits: scales.weigh(target, chosen[bits])
        for bits in track(list(chosen), f"weighing {target}", console)
    }
    value = _dense_width(dense, files.values(), counts)
    fixed = dense.total - value * sum(counts.values())
    items: dict[Item, float] = {(name, None): value * count for name, count in counts.items()}
    for bits, file in files.items():
        stored = max(file.widths.values())
        rest = value * sum(counts[name] for name in counts.keys() - chosen[bits].keys())
        made = chosen[bits].items()
        payload = sum(_payload(shapes[n], s, stored, file.lut_width) for n, s in made)
        shared = (file.total - fixed - rest - payload) / len(made)
        for name, found in candidates.items():
            for spec in (spec for spec in found if spec.bits == bits):
                size = _payload(shapes[name], spec, stored, file.lut_width)
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


def _payload(shape: tuple[int, ...], spec: PaletteSpec, stored: int, lut_width: int) -> int:
    """Bytes of the indices, the LUTs and the scale of a weight."""
    indices = prod(shape) // spec.cluster_dim
    values = (group_count(shape, spec) << stored) * spec.cluster_dim
    scales = shape[0] if spec.per_channel_scale else 0
    return -(-indices * stored // 8) + (values + scales) * lut_width


def largest(models: Iterable[Sizes]) -> Sizes:
    """Bytes that no file of several targets exceeds."""
    models = list(models)
    items = {item: max(m.items[item] for m in models) for item in models[0].items}
    return Sizes(max(m.fixed for m in models), items)


def _dense_width(dense: Weighed, files: Iterable[Weighed], counts: Mapping[str, int]) -> float:
    """Bytes of a dense value, from the file in which palettes replace the most of them."""
    most = max(files, key=lambda file: sum(counts[name] for name in file.widths))
    return (dense.dense - most.dense) / sum(counts[name] for name in most.widths)


def _stand_ins(model: nn.Module, specs: Specs) -> Iterable[tuple[str, Palette]]:
    """Palettes of the right layout with random values: files of them have the same bytes."""
    generator = torch.Generator().manual_seed(0)
    for name, spec in specs.items():
        yield name, _stand_in(model.get_parameter(name), spec, generator)


def _stand_in(weight: Tensor, spec: PaletteSpec, generator: torch.Generator) -> Palette:
    groups, entries = group_count(weight.shape, spec), 1 << spec.bits
    count = weight.numel() // (groups * spec.cluster_dim)
    indices = torch.randint(entries, (groups, count), generator=generator)
    lut = torch.randn(groups, entries, spec.cluster_dim, generator=generator)
    scale = None
    if spec.per_channel_scale:
        shape = (len(weight), *[1] * (weight.ndim - 1))
        scale = 1 + torch.rand(shape, generator=generator)
    return to_palette(indices, lut, weight.shape, spec, scale)


def _options(target: str) -> dict[str, Any]:
    """The option of ``convert`` that a version, as in "coreml:iOS17", stands for."""
    name, _, version = target.partition(":")
    kind = target_named(name)
    return {kind.version_option: version} if version and isinstance(kind, Versioned) else {}
