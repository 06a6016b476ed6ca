"""A PyTorch model as the subject of a plan."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dkm_deploy._support.measurement_cache import model_digest, tensor_digest
from dkm_deploy.clustering.layout import group_count, to_palette
from dkm_deploy.conversion.convert import convert
from dkm_deploy.conversion.plan_subject import FileSizes, Specs
from dkm_deploy.conversion.registry import target_named
from dkm_deploy.conversion.target import VersionedTarget
from dkm_deploy.model.inputs import Inputs, to_device
from dkm_deploy.model.palettized import with_palettes
from dkm_deploy.nn_utils.recurrent import gates
from dkm_deploy.palette import Palette
from dkm_deploy.palette_spec import PaletteSpec
from dkm_deploy.post_training.loss_probe import LossProbe
from dkm_deploy.post_training.methods import PostTrainingMethod
from dkm_deploy.recipe import Recipe


class ModuleSubject:
    """Implements :class:`dkm_deploy.conversion.plan_subject.PlanSubject`.

    Args:
        model: a plain model.
        probe: has a copy of it, and measures.
        method: makes the palettes.
        example: inputs for :func:`dkm_deploy.convert`.
        dynamic_shapes: of these, likewise.
    """

    def __init__(
        self,
        model: nn.Module,
        probe: LossProbe,
        method: PostTrainingMethod,
        example: Inputs,
        dynamic_shapes: Any = None,
    ) -> None:
        self._model, self._probe, self._method = model, probe, method
        self._here = copy.deepcopy(model).cpu()  # where files are made
        self._example = to_device(example, torch.device("cpu"))
        self._dynamic_shapes = dynamic_shapes
        self.shapes: Mapping[str, tuple[int, ...]] = {
            name: tuple(model.get_parameter(name).shape)
            for name in Recipe(PaletteSpec(1)).assign(model).specs
        }
        content, data = model_digest(model), tensor_digest(probe.samples)
        free = () if dynamic_shapes is None else (dynamic_shapes,)
        self.written_from: Sequence[object] = (content, tensor_digest(example), *free)
        self.measured_on: Sequence[object] = (content, data, probe.metric, probe.baseline, method)

    def holds(self, name: str, spec: PaletteSpec, target: str) -> bool:
        """Whether the target does not refuse it."""
        blocks = gates(self._model, name)
        return target_named(target).refuse(spec, self.shapes[name], blocks) is None

    def losses(self, spec: PaletteSpec, names: Sequence[str]) -> Iterator[tuple[str, float]]:
        """By the method's palettes of all these weights."""
        calibration = self._probe.samples if self._method.calibrated else None
        specs = dict.fromkeys(names, spec)
        for name, palette in self._method.palettes(self._model, specs, calibration):
            yield name, self._probe.loss(name, torch.tensor(palette.decode()))

    def weigh(self, target: str, specs: Specs) -> FileSizes:
        """By writing it to a folder that is removed again."""
        frozen = with_palettes(self._here, _stand_ins(self._here, specs))
        kind, options = target_named(target), _options(target)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"model{kind.suffixes[0]}"
            shapes = self._dynamic_shapes
            written = convert(
                frozen, self._example, path, dynamic_shapes=shapes, try_file=False, **options
            )
            palettes = kind.read_palettes(path)
        return FileSizes.of(written.ledger, palettes)


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
    return {kind.version_option: version} if version and isinstance(kind, VersionedTarget) else {}
