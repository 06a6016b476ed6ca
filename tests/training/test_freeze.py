from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from tests.models import MIXED, TRAINABLE, images, small_net


def test_palettize_leaves_the_model_alone_and_decodes_to_its_palettes():
    model = small_net()
    before = copy.deepcopy(model.state_dict())
    frozen = dkm.palettize(model, MIXED)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    palettes = dkm.palettes(frozen)
    assert {name: p.bits for name, p in palettes.items()} == {"stem.weight": 3, "head.weight": 8}
    for name, palette in palettes.items():
        weight = frozen.get_submodule(name.removesuffix(".weight")).weight
        assert np.array_equal(weight.numpy(), palette.decode())
    assert not frozen.training


def test_eight_bits_of_few_weights_are_exact():
    model = small_net()
    frozen = dkm.palettize(model, dkm.Recipe.uniform(8))
    assert torch.equal(frozen.head.weight, model.head.weight)
    torch.testing.assert_close(frozen(images()), model(images()))


def test_the_state_dict_holds_indices_not_weights():
    state = dkm.palettize(small_net(), dkm.Recipe.uniform(2)).state_dict()
    indices = state["stem.parametrizations.weight.original"]
    assert indices.dtype == torch.uint8
    assert "stem.weight" not in state


def test_freezing_leaves_the_trained_model_training():
    model = dkm.prepare(small_net(), TRAINABLE).train()
    frozen = dkm.freeze(model)
    assert model.training
    assert not frozen.training
    model(images()).sum().backward()
    assert model.stem.parametrizations.weight.original.grad is not None
    assert dkm.freeze(model) is not frozen


def test_soft_copy_computes_what_training_computes():
    model = dkm.prepare(nn.Linear(16, 4), dkm.Recipe.uniform(2)).train()
    x = torch.randn(3, 16)
    soft = dkm.soft_copy(model)
    assert torch.equal(soft(x), model(x))
    assert isinstance(soft.weight, nn.Parameter)


def test_a_frozen_lstm_shares_nothing_with_the_trained_one():
    model = dkm.prepare(nn.LSTM(6, 6), dkm.Recipe.uniform(2))
    model(torch.randn(3, 2, 6))
    frozen = dkm.freeze(model)
    kept = frozen.bias_ih_l0.detach().clone()
    with torch.no_grad():
        model.bias_ih_l0.add_(1)
    assert isinstance(frozen.bias_ih_l0, nn.Parameter)
    assert torch.equal(frozen.bias_ih_l0, kept)


def test_palettes_of_a_prepared_model_are_refused():
    with pytest.raises(dkm.DkmError, match="prepared but not frozen"):
        dkm.palettes(dkm.prepare(small_net(), TRAINABLE))


def test_a_root_parameter_has_its_plain_name():
    frozen = dkm.palettize(nn.Linear(4, 4), dkm.Recipe.uniform(2))
    assert list(dkm.palettes(frozen)) == ["weight"]


def test_unknown_method():
    with pytest.raises(dkm.DkmError, match="unknown post-training method 'magic'"):
        dkm.palettize(small_net(), MIXED, method="magic")


def test_k_means_takes_no_calibration():
    with pytest.raises(dkm.DkmError, match="leave calibration out"):
        dkm.palettize(small_net(), MIXED, calibration=images())


def test_a_frozen_model_is_not_palettized_again():
    with pytest.raises(dkm.DkmError, match="start from the plain model"):
        dkm.palettize(dkm.palettize(small_net(), MIXED), MIXED)
