"""Channels of zeros in palettes with a scale for each channel: a scale of 0, and no sound."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm

LAYOUTS = [
    {},
    {"group_size": 8},
    {"group_size": 2},
    {"cluster_dim": 2},
    {"cluster_dim": 2, "axis": 1},
]


def scaled(bits: int = 3, **layout: int) -> dkm.Recipe:
    return dkm.Recipe.uniform(bits, per_channel_scale=True, **layout)


def layer_with_zeros(*channels: int) -> nn.Linear:
    torch.manual_seed(0)
    layer = nn.Linear(32, 16, bias=False)
    with torch.no_grad():
        layer.weight[list(channels)] = 0
    return layer


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("method", ["kmeans", "sensitive"])
def test_zeros_are_free(layout, method):
    layer = layer_with_zeros(2, 3, 9)
    samples = torch.randn(8, 32) if method == "sensitive" else None
    frozen = dkm.palettize(layer, scaled(**layout), method, samples)
    scale = dkm.palettes(frozen)["weight"].scale.ravel()
    largest = layer.weight.detach().abs().amax(1).numpy()
    assert np.array_equal(scale, largest)
    assert not frozen.weight[[2, 3, 9]].any()


def test_zeros_take_no_centroid_from_the_others():
    layer = layer_with_zeros(*range(12))
    rest = nn.Linear(32, 4, bias=False)
    rest.weight = nn.Parameter(layer.weight.detach()[12:])
    palettes = [dkm.palettes(dkm.palettize(one, scaled(2)))["weight"] for one in (layer, rest)]
    np.testing.assert_allclose(palettes[0].lut, palettes[1].lut, atol=2e-3)


def test_next_to_nothing_and_far_too_much():
    layer = layer_with_zeros()
    with torch.no_grad():
        layer.weight[0] *= 1e-30
        layer.weight[1] = 1e-41  # nothing divided by it would be exact
        layer.weight[2, 5] = 1e30
    samples = torch.randn(8, 32)
    for options in ({}, {"method": "sensitive", "calibration": samples}):
        weight = dkm.palettize(layer, scaled(4), **options).weight.double()
        wanted = layer.weight.detach().double()
        assert (weight[0] - wanted[0]).norm() < 0.2 * wanted[0].norm()
        assert not weight[1].any()
        assert weight[2, 5] == pytest.approx(1e30, rel=0.1)
        assert (weight[3:] - wanted[3:]).norm() < 0.2 * wanted[3:].norm()


def test_a_weight_of_zeros_alone():
    frozen = dkm.palettize(layer_with_zeros(*range(16)), scaled())
    assert not frozen.weight.any()


@pytest.mark.parametrize("method", ["dkm", "ste", "ewgs", "gwk"])
def test_training_leaves_zeros_quiet_and_can_move_them(method):
    model = dkm.prepare(layer_with_zeros(2), scaled(), method=method).train()
    x = torch.randn(8, 32)
    assert not model.weight[2].any()
    (model(x) - 1).square().mean().backward()
    original = model.parametrizations.weight.original
    assert original.grad[2].abs().max() > 1e-3
    with torch.no_grad():
        original[2] = 1e-3  # nearer to zero than to any centroid
    dkm.step(model)
    frozen = dkm.freeze(model)
    assert dkm.palettes(frozen)["weight"].scale.ravel()[2] == 0
    assert torch.equal(model.eval()(x), frozen(x))
    with torch.no_grad():
        original[2] = original[3]
    frozen = dkm.freeze(model)
    assert frozen.weight[2].abs().max() > 0.5 * original[3].abs().max()
    assert torch.equal(model(x), frozen(x))


def test_corrected_zeros_stay_zeros():
    layer = layer_with_zeros(2)
    corrected = dkm.correct_outputs(dkm.palettize(layer, scaled(2)), layer, torch.randn(64, 32))
    assert not corrected.weight[2].any()
