"""``dkm.dense``: an ordinary model of a frozen one, to merge adapters into."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import dkm_deploy as dkm
from tests.models import MIXED, TiedNet, images, small_net
from tests.nn_utils.test_weights import Doubled


def merge(layer: nn.Linear, delta: torch.Tensor) -> None:
    """What an adapter's ``merge_and_unload`` does."""
    layer.weight.data += delta


def test_it_is_the_plain_model_with_decoded_weights():
    frozen = dkm.palettize(small_net(), MIXED)
    before = {name: tensor.clone() for name, tensor in frozen.state_dict().items()}
    model = dkm.dense(frozen)
    assert [type(m) for m in model.modules()] == [type(m) for m in small_net().modules()]
    assert not model.training
    assert model.state_dict().keys() == small_net().state_dict().keys()
    assert [n for n, _ in model.named_parameters()] != []
    for name, palette in dkm.palettes(frozen).items():
        assert model.get_parameter(name).detach().numpy().tobytes() == palette.decode().tobytes()
        assert model.get_parameter(name).requires_grad
    assert torch.equal(model(images()), frozen(images()))
    merge(model.head, torch.ones(5, 8))
    for name, tensor in frozen.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_what_is_merged_is_palettized_again():
    frozen = dkm.palettize(small_net(), MIXED)
    model = dkm.dense(frozen)
    delta = torch.randn(5, 1) @ torch.randn(1, 8)
    merge(model.head, delta)
    again = dkm.palettize(model, dkm.Recipe.uniform(8))
    torch.testing.assert_close(again.head.weight, frozen.head.weight + delta)
    assert torch.equal(again.stem.weight, frozen.stem.weight)


def test_tied_weights_stay_tied():
    frozen = dkm.palettize(TiedNet(), dkm.Recipe.uniform(3, per_channel_scale=True))
    model = dkm.dense(frozen)
    assert model.out.weight is model.embed.weight
    ids = torch.arange(20).reshape(2, 10)
    assert torch.equal(model(ids), frozen(ids))


def test_recurrent_layers():
    frozen = dkm.palettize(nn.LSTM(6, 8, 2), dkm.Recipe.uniform(3))
    x = torch.randn(5, 2, 6)
    assert torch.equal(dkm.dense(frozen)(x)[0], frozen(x)[0])


def test_what_is_above_a_palette_is_applied():
    frozen = dkm.palettize(nn.Linear(8, 8), dkm.Recipe.uniform(3))
    parametrize.register_parametrization(frozen, "weight", Doubled())
    x = torch.randn(2, 8)
    model = dkm.dense(frozen)
    assert type(model) is nn.Linear
    assert torch.equal(model(x), frozen(x))


def test_models_without_palettes_are_refused():
    with pytest.raises(dkm.DkmError, match="no palettes: its weights are dense already"):
        dkm.dense(small_net())
    with pytest.raises(dkm.DkmError, match="prepared but not frozen"):
        dkm.dense(dkm.prepare(nn.Linear(8, 8), dkm.Recipe.uniform(2)))


def test_a_frozen_weight_cannot_be_set():
    frozen = dkm.palettize(nn.Linear(8, 8), dkm.Recipe.uniform(3))
    with pytest.raises(dkm.DkmError, match=r"decoded from a palette .* dkm\.dense\(model\)"):
        frozen.weight = torch.zeros(8, 8)
    with pytest.raises(dkm.DkmError, match=r"dkm\.dense"), torch.no_grad():
        frozen.weight += 1
