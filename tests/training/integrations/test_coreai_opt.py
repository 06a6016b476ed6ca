"""DKM as a training strategy of Apple's coreai-opt."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

pytest.importorskip("coreai_opt", reason="needs coreai-opt 0.3.0: pip install coreai-opt==0.3.0")

from coreai_opt.palettization import KMeansPalettizer
from coreai_opt.palettization.config import (
    KMeansPalettizerConfig,
    ModuleKMeansPalettizerConfig,
)
from coreai_opt.palettization.spec import (
    PalettizationSpec,
    PerGroupedChannelGranularity,
    TrainingStrategySpec,
)

from dkm_deploy.training.integrations.coreai_opt import DKMTrainingSpec

# coreai-opt 0.3.0 reads a field of pydantic's in a way that is to go.
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the 'model_fields' attribute")

X, Y = torch.randn(64, 16), torch.randint(0, 4, (64,))


def _net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))


def _config(strategy, **spec):
    weight = PalettizationSpec(**{"n_bits": 2, **spec}, training_strategy_spec=strategy)
    return KMeansPalettizerConfig(
        global_config=ModuleKMeansPalettizerConfig(
            op_state_spec={"weight": weight}, enable_fast_kmeans_mode=False
        )
    )


def _trained(strategy, steps=30, **spec):
    """A model that was trained with a strategy, its palettizer, and its losses."""
    model = _net()
    palettizer = KMeansPalettizer(model, _config(strategy, **spec))
    prepared = palettizer.prepare((X,))
    optimizer = torch.optim.Adam(prepared.parameters(), 1e-2)
    losses = []
    with palettizer.training_mode():
        for _ in range(steps):
            optimizer.zero_grad()
            loss = functional.cross_entropy(prepared(X), Y)
            loss.backward()
            optimizer.step()
            palettizer.step()
            losses.append(loss.item())
    return prepared, palettizer, losses


def test_coreai_opt_finds_the_plugin_by_itself():
    assert TrainingStrategySpec.REGISTRY["dkm"] is DKMTrainingSpec


def test_weights_learn_which_they_do_not_with_the_default():
    prepared, _, losses = _trained({"type": "dkm"})
    still, _, other_losses = _trained({"type": "default"})
    start = _net()[0].weight
    assert (prepared[0].parametrizations.weight.original - start).abs().max() > 1e-3
    assert torch.equal(still[0].parametrizations.weight.original, start)
    assert losses[-1] < losses[0]
    assert losses[-1] < other_losses[-1]


SPECS = [
    {},
    {"cluster_dim": 2, "n_bits": 4},
    {"granularity": PerGroupedChannelGranularity(axis=0, group_size=2)},
    {"granularity": PerGroupedChannelGranularity(axis=1, group_size=8)},
    {"enable_per_channel_scale": True},
]


@pytest.mark.parametrize("spec", SPECS)
def test_what_is_finalized_is_what_was_trained(spec):
    pytest.importorskip("coreai_torch", reason="finalize needs coreai-torch")
    prepared, palettizer, losses = _trained({"type": "dkm"}, steps=10, **spec)
    assert losses[-1] < losses[0]
    expected = prepared.eval()(X)
    assert torch.equal(palettizer.finalize(prepared)(X), expected)


@pytest.mark.parametrize("spec", SPECS)
def test_indices_belong_to_the_centroids_in_training_mode_too(spec):
    """For a fresh model is in training mode, and finalize exports what indices there are."""
    prepared, _, _ = _trained({"type": "dkm"}, steps=3, **spec)
    prepared.train()
    for layer in (prepared[0], prepared[2]):
        assert layer.weight.requires_grad  # a forward pass, after the last step
        fake, weight = layer.parametrizations.weight[0], layer.parametrizations.weight.original
        left = fake.indices.clone()
        fake.hard_assign(weight.detach())  # assigns anew
        assert torch.equal(left, fake.indices)


def test_convolutions(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 4, 3))
    palettizer = KMeansPalettizer(model, _config({"type": "dkm"}))
    x = torch.randn(2, 3, 8, 8)
    prepared = palettizer.prepare((x,))
    with palettizer.training_mode():
        prepared(x).square().mean().backward()
    for layer in (prepared[0], prepared[2]):
        assert layer.parametrizations.weight.original.grad.abs().max() > 0
        fake = layer.parametrizations.weight[0]
        assert fake.indices.shape == layer.weight.shape
        assert len(torch.unique(prepared.eval()[0].weight)) <= 4


def test_options_come_from_the_configuration():
    spec = TrainingStrategySpec.maybe_build_from_dict({"type": "dkm", "iterations": 3})
    assert spec.model_dump()["type"] == "dkm"
    assert spec.iterations == 3
    with pytest.raises(ValueError, match="iterations is 0; it must be at least 1"):
        DKMTrainingSpec(iterations=0)
    with pytest.raises(ValueError, match="extra"):
        DKMTrainingSpec(temprature=1.0)


def test_activation_checkpointing_moves_nothing_twice():
    model = _net()
    palettizer = KMeansPalettizer(model, _config({"type": "dkm"}))
    prepared = palettizer.prepare((X,))
    plain = copy.deepcopy(prepared)
    with palettizer.training_mode():
        torch.utils.checkpoint.checkpoint(prepared, X, use_reentrant=False).sum().backward()
    plain.train()
    plain(X).sum().backward()
    for one, other in zip(prepared.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    fakes = [m[0].parametrizations.weight[0] for m in (prepared, plain)]
    assert torch.equal(fakes[0].centroids, fakes[1].centroids)
