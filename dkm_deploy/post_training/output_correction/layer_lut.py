"""The LUT of one layer's weight, fitted to the outputs that the layer should have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dkm_deploy.model.palettized import PaletteWeight
from dkm_deploy.post_training.output_correction.layer_samples import LayerSamples
from dkm_deploy.post_training.output_correction.lut_least_squares import LutFit

_LINEAR = 1e-2  # of the outputs' norm; the arithmetic of float16 is not further off


def correct_lut(samples: LayerSamples, chain: parametrize.ParametrizationList) -> bool:
    """Give a weight of ``samples.layer`` the LUT whose outputs are nearest to the original's.

    They are compared behind the BatchNorm, where there is one. A shift of a channel does not count
    where a bias or a BatchNorm takes it up.

    Args:
        samples: of a stage with a layer.
        chain: the parametrization of the weight.

    Returns:
        Whether the LUT has changed: not where it was the best already, nor in a layer of a class
        of the user's own that is not linear in the weight.
    """
    indices, decoder = chain.original, cast(PaletteWeight, chain[0])
    if not _is_linear(replace(samples, calls=samples.calls[:1]), decoder):
        return False

    zeros = (decoder.lut == 0).all(-1, keepdim=True)  # of a pruned weight, which stays pruned

    def _outputs(lut: Tensor) -> list[Tensor]:
        with _lut(decoder, lut.masked_fill(zeros, 0)):
            return samples.outputs()

    free = samples.dim if _shifts_are_free(samples) else None
    fit = LutFit(_outputs, samples.wanted, samples.weights, free, _mass(indices, decoder))
    found = fit(decoder.lut).masked_fill(zeros, 0)
    changed = not torch.equal(found, decoder.lut)
    decoder.lut.copy_(found)
    return changed


def _shifts_are_free(samples: LayerSamples) -> bool:
    """Whether a BatchNorm or a bias takes up a shift of each channel."""
    return samples.norm is not None or cast(nn.Module, samples.layer).bias is not None


def _is_linear(samples: LayerSamples, decoder: PaletteWeight) -> bool:
    """Whether the outputs are linear in the LUT, but for what they are with zeros."""
    outputs = []
    for factor in (0, 1, 2):
        with _lut(decoder, factor * decoder.lut):
            outputs.append(samples.outputs()[0])
    none, once, twice = outputs
    return bool((twice - 2 * once + none).norm() <= _LINEAR * twice.norm())


def _mass(indices: Tensor, decoder: PaletteWeight) -> Tensor:
    """The weights of each LUT entry, each counted by the square of its scale."""
    ones = torch.ones_like(decoder.lut, dtype=torch.float32).requires_grad_()
    with torch.enable_grad(), _lut(decoder, ones):
        size = decoder(indices).square().sum()
    (gradient,) = torch.autograd.grad(size, ones)
    return gradient / 2


@contextmanager
def _lut(decoder: PaletteWeight, lut: Tensor) -> Iterator[None]:
    """Another LUT for a while."""
    kept = decoder.lut
    decoder.lut = lut
    try:
        yield
    finally:
        decoder.lut = kept
