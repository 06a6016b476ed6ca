"""coremltools' and coreai-opt's palettizers on the same weights, with the same calibration data.

Their results are taken as weights and made palettes, so that a layer which was passed over or got
more values than its bits allow is an error and not a good row.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import dkm_deploy as dkm
from benchmarks.distil import distil
from benchmarks.methods.subject import Subject
from dkm_deploy.errors import DkmError
from dkm_deploy.model.inputs import call, split_batch
from dkm_deploy.model.palettized import with_palettes


def coremltools_kmeans(subject: Subject, spec: dkm.PaletteSpec, _seed: int) -> nn.Module:
    """Its post-training k-means, with its default fast mode."""
    from coremltools.optimize.torch import palettization as peer

    names = {"module_name_configs": _by_layer(subject, spec, {"n_bits": spec.bits})}
    config = peer.PostTrainingPalettizerConfig.from_dict(names)
    return _frozen(subject, spec, peer.PostTrainingPalettizer(subject.model, config).compress())


def coremltools_sensitive(subject: Subject, spec: dkm.PaletteSpec, seed: int) -> nn.Module:
    """Its k-means weighted by squared gradients; it has no fast mode."""
    from coremltools.optimize.torch import palettization as peer

    batches, loss = subject.calibration(seed), loss_of(seed)
    names = {
        "module_name_configs": _by_layer(subject, spec, {"n_bits": spec.bits}),
        "calibration_nsamples": len(batches),
    }
    palettizer = peer.SKMPalettizer(
        copy.deepcopy(subject.model), peer.SKMPalettizerConfig.from_dict(names)
    )

    def _batch_loss(model: nn.Module, batch: Any) -> Tensor:
        inputs, labels = split_batch(batch)
        return loss(call(model, inputs), labels)

    made = palettizer.compress(dataloader=batches, loss_fn=_batch_loss)
    return _frozen(subject, spec, made)


def coreai_kmeans(subject: Subject, spec: dkm.PaletteSpec, _seed: int) -> nn.Module:
    """coreai-opt's k-means, with its default fast mode."""
    return _frozen(subject, spec, _coreai(subject, spec)[1])


def coreai_sensitive(subject: Subject, spec: dkm.PaletteSpec, seed: int) -> nn.Module:
    """coreai-opt's k-means weighted by squared gradients."""
    palettizer, prepared = _coreai(subject, spec)
    with palettizer.calibration_mode(loss_fn=loss_of(seed)) as helper:
        for batch in subject.calibration(seed):
            inputs, labels = split_batch(batch)
            helper.step(call(prepared, inputs), labels)
    return _frozen(subject, spec, prepared)


def coremltools_dkm(
    subject: Subject, spec: dkm.PaletteSpec, seed: int, temperature: float
) -> nn.Module:
    """Its DKM trained as ours; ``temperature`` is its ``palett_tau``."""
    from coremltools.optimize.torch import palettization as peer

    options = {"n_bits": spec.bits, "weight_threshold": 0, "palett_tau": temperature}
    config = peer.DKMPalettizerConfig.from_dict(
        {"module_name_configs": _by_layer(subject, spec, options)}
    )
    palettizer = peer.DKMPalettizer(copy.deepcopy(subject.model), config)
    prepared = palettizer.prepare(inplace=True)
    distil(prepared, subject.course(seed), palettizer.step)
    return _frozen(subject, spec, palettizer.finalize(inplace=True))


def _coreai(subject: Subject, spec: dkm.PaletteSpec) -> tuple[Any, nn.Module]:
    from coreai_opt.palettization import (
        KMeansPalettizer,
        KMeansPalettizerConfig,
        ModuleKMeansPalettizerConfig,
        PalettizationSpec,
    )

    weight = {"weight": PalettizationSpec(n_bits=spec.bits)}
    # As state of the module, for it knows no operation that looks up an embedding.
    layer = ModuleKMeansPalettizerConfig(op_state_spec=None, module_state_spec=weight)
    config = KMeansPalettizerConfig(
        global_config=None, module_name_configs=_by_layer(subject, spec, layer)
    )
    palettizer = KMeansPalettizer(copy.deepcopy(subject.model), config)
    return palettizer, palettizer.prepare(subject.example)


def _by_layer(subject: Subject, spec: dkm.PaletteSpec, value: Any) -> dict[str, Any]:
    """A value for every layer that is palettized; peers take patterns."""
    return {re.escape(name.rpartition(".")[0]): value for name in subject.specs(spec)}


def loss_of(seed: int) -> Callable[[Tensor, Tensor | None], Tensor]:
    """What sensitive k-means differentiates: cross entropy, or the outputs with random signs."""
    generator = torch.Generator().manual_seed(seed)

    def _of(outputs: Tensor, labels: Tensor | None) -> Tensor:
        if labels is not None:
            return functional.cross_entropy(outputs, labels)
        signs = 2 * torch.randint(0, 2, outputs.shape, generator=generator) - 1
        scale: Tensor = outputs.detach().norm()
        return (signs * outputs).sum() / scale

    return _of


def _frozen(subject: Subject, spec: dkm.PaletteSpec, made: nn.Module) -> nn.Module:
    """A frozen model of ours with the weights of theirs, and their other parameters."""
    plain = copy.deepcopy(subject.model)
    weights: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, own in [*plain.named_parameters(), *plain.named_buffers()]:
            layer, _, attribute = name.rpartition(".")
            theirs = getattr(made.get_submodule(layer), attribute)
            own.copy_(theirs)
            weights[name] = own
    specs = subject.specs(spec)
    return with_palettes(plain, _palettes({name: weights[name] for name in specs}, spec.bits))


def _palettes(weights: Mapping[str, Tensor], bits: int) -> Iterator[tuple[str, dkm.Palette]]:
    for name, weight in weights.items():
        yield name, palette_of(name, weight, bits)


def palette_of(name: str, weight: Tensor, bits: int) -> dkm.Palette:
    """A palette of the values that a weight has.

    Raises:
        DkmError: they are more than ``bits`` can number.
    """
    values, places = np.unique(weight.detach().numpy(), return_inverse=True)
    if len(values) > 1 << bits:
        raise DkmError(f"{name}: {len(values)} distinct values, {bits} bits have {1 << bits}")
    lut = np.pad(values, (0, (1 << bits) - len(values)), mode="edge")
    shape = (*[1] * weight.ndim, 1 << bits, 1)
    return dkm.Palette(places.reshape(weight.shape).astype(np.uint8), lut.reshape(shape))
