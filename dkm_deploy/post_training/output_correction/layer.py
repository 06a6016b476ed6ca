"""Correct one layer, and the BatchNorm behind it, on what the corrected layers before it give."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import cast

from torch import nn
from torch.nn.utils import parametrize

from dkm_deploy.post_training.output_correction.channel_statistics import channel_mean, fit_norm
from dkm_deploy.post_training.output_correction.layer_lut import correct_lut
from dkm_deploy.post_training.output_correction.layer_order import Stage
from dkm_deploy.post_training.output_correction.layer_samples import LayerSamples


@dataclass(frozen=True)
class LayerCorrection:
    """What was done at one layer.

    Attributes:
        name: of the layer, or of a BatchNorm that no layer feeds directly.
        corrected: names of what has new values: palettized weights, a bias, a BatchNorm.
        error_before: ``|outputs - original outputs| / |original outputs|`` on the calibration
            data, behind its BatchNorm if there is one, with all layers before it corrected.
        error_after: the same with this layer corrected too.
    """

    name: str
    corrected: tuple[str, ...]
    error_before: float
    error_after: float


def correct_layer(stage: Stage, samples: LayerSamples, luts: Collection[str]) -> LayerCorrection:
    """Correct one stage in place. Each step is a least-squares one, so none makes it worse.

    Args:
        stage: of a model.
        samples: of the stage.
        luts: names of the palettized weights that may be corrected.
    """
    before = samples.error()
    if samples.norm is None:
        corrected = _correct_luts(stage, samples, luts) + _correct_bias(stage, samples)
    else:
        fit_norm(samples.norm, samples.outputs(), samples.wanted, samples.weights)
        corrected = [*_correct_luts(stage, samples, luts), str(stage.norm)]
        fit_norm(samples.norm, samples.outputs(), samples.wanted, samples.weights)
    return LayerCorrection(stage.name, tuple(corrected), before, samples.error())


def _correct_luts(stage: Stage, samples: LayerSamples, luts: Collection[str]) -> list[str]:
    layer = samples.layer
    if layer is None or not parametrize.is_parametrized(layer):
        return []
    chains = cast(nn.ModuleDict, layer.parametrizations)
    return [
        name
        for attribute, chain in chains.items()
        if (name := f"{stage.layer}.{attribute}".lstrip(".")) in luts
        and correct_lut(samples, cast(parametrize.ParametrizationList, chain))
    ]


def _correct_bias(stage: Stage, samples: LayerSamples) -> list[str]:
    """Take up the mean gap of each channel."""
    layer, bias = samples.layer, getattr(samples.layer, "bias", None)
    if layer is None or bias is None:
        return []
    pairs = zip(samples.wanted, samples.outputs(), strict=True)
    gaps = [wanted - output for wanted, output in pairs]
    bias.add_(channel_mean(gaps, samples.weights, samples.dim))
    return [f"{stage.layer}.bias".lstrip(".")]
