"""EWGS: uniform levels whose interval and scale train with the weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from tests.models import TRAINABLE, images, small_net
from tests.training.loop.runs import Killed, assert_same, batches, fit_quietly, kill_at


def _layer(spec, seed=0, method="ewgs"):
    torch.manual_seed(seed)
    model = dkm.prepare(nn.Linear(16, 4), dkm.Recipe(spec), method=method).train()
    return model, model.parametrizations.weight[0].learned


def _uniform(lut):
    steps = np.diff(lut)
    return np.allclose(steps, steps[..., :1], rtol=1e-4) and np.allclose(lut, -lut[..., ::-1])


@pytest.mark.parametrize("spec", [dkm.PaletteSpec(1), dkm.PaletteSpec(3, group_size=2)])
def test_luts_are_uniform_and_what_is_learned_moves_them(spec):
    model, learned = _layer(spec)
    before = learned.detach().clone()
    assert before.shape == (2 if spec.group_size else 1, 3)
    fit_quietly(model, batches(), epochs=3)
    assert not torch.isclose(learned, before).any()
    (palette,) = dkm.palettes(dkm.freeze(model)).values()
    assert _uniform(palette.lut[..., 0])
    np.testing.assert_allclose(palette.lut[..., -1, 0].ravel(), learned[:, 2].detach(), rtol=1e-6)


@pytest.mark.parametrize("scaled", [False, True])
def test_training_eval_and_freeze_have_the_same_bits(scaled):
    model, _ = _layer(dkm.PaletteSpec(2, per_channel_scale=scaled))
    fit_quietly(model, batches())
    assert torch.equal(model.train().weight, model.eval().weight)
    assert torch.equal(model.weight, dkm.freeze(model).weight)
    assert dkm.status(model)["weight"].soft_hard_gap == 0


def test_the_interval_decides_where_a_weight_goes_not_the_nearest_value():
    model, learned = _layer(dkm.PaletteSpec(1))
    with torch.no_grad():
        learned.copy_(torch.tensor([[0.0, 0.2, 5.0]]))
    weight = model.parametrizations.weight.original
    (palette,) = dkm.palettes(dkm.freeze(model)).values()
    assert np.array_equal(palette.indices, weight.detach().numpy() > 0.1)
    assert palette.lut.ravel().tolist() == [-5, 5]


def test_the_loss_falls():
    model = dkm.prepare(small_net(), TRAINABLE, method="ewgs").train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = model(images()).square().mean()
        loss.backward()
        optimizer.step()
        dkm.step(model)
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("last", [2, 5])
def test_a_resumed_run_gives_the_same_bits(tmp_path, last):
    whole, _ = _layer(dkm.PaletteSpec(2))
    fit_quietly(whole, batches(), epochs=2)
    options = {"epochs": 2, "checkpoint": tmp_path / "run.pt", "every": 1}
    with pytest.raises(Killed):
        fit_quietly(_layer(dkm.PaletteSpec(2))[0], batches(), after_step=kill_at(last), **options)
    resumed, _ = _layer(dkm.PaletteSpec(2), seed=5)
    fit_quietly(resumed, batches(), **options)
    assert_same(resumed.state_dict(), whole.state_dict())


def _curved(model, factor=1.0):
    """A loss whose Hessian by the weight is ``factor * diag(1, 2, ..)``, and that diagonal."""
    size = torch.arange(1.0, model.weight.numel() + 1).reshape(model.weight.shape)
    return lambda: factor * 0.5 * (size * model.weight.square()).sum(), size


def test_the_delta_is_the_curvature_over_three_deviations_of_the_gradient():
    model, learned = _layer(dkm.PaletteSpec(2))
    loss, size = _curved(model)
    scale = 2 * learned[0, 2].item()  # of a weight by its level
    gradient = scale * size * dkm.freeze(model).weight
    expected = scale**2 * size.mean() / (3 * gradient.std(correction=0))
    found = dkm.update_ewgs_scaling(model, loss)
    assert found == {"weight": pytest.approx(expected.item(), rel=1e-4)}
    assert model.parametrizations.weight[0].scaling.item() == pytest.approx(found["weight"])
    assert dkm.update_ewgs_scaling(model, _curved(model, -1.0)[0]) == {"weight": 0.0}


def test_the_delta_scales_gradients_and_is_in_the_checkpoint():
    model, _ = _layer(dkm.PaletteSpec(2))
    weight = model.parametrizations.weight.original

    def gradient(delta):
        model.parametrizations.weight[0].scaling.fill_(delta)
        return torch.autograd.grad((model.weight * torch.ones(4, 16)).sum(), weight)[0]

    plain, scaled = gradient(0.0), gradient(0.5)
    assert (scaled != plain).any()
    fresh, _ = _layer(dkm.PaletteSpec(2), seed=1)
    fresh.load_state_dict(model.state_dict())
    assert fresh.parametrizations.weight[0].scaling.item() == 0.5


def test_measuring_a_delta_leaves_the_rest_of_the_model_alone():
    model = dkm.prepare(small_net(), TRAINABLE, method="ewgs").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = dkm.update_ewgs_scaling(model, lambda: model(images()).logsumexp(1).mean())
    assert model.training
    assert set(found) == set(dkm.status(model))
    for name, value in model.state_dict().items():
        assert name.endswith(".scaling") or torch.equal(value, before[name]), name


class TestBadInput:
    def test_vectors(self):
        with pytest.raises(dkm.DkmError, match="weight: cluster_dim is 2, and method ewgs needs 1"):
            _layer(dkm.PaletteSpec(2, cluster_dim=2))

    def test_an_optimizer_made_before(self):
        layer = nn.Linear(16, 4)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        model = dkm.prepare(layer, dkm.Recipe.uniform(2), method="ewgs")
        with pytest.raises(dkm.DkmError, match=r"weight: the optimizer lacks .*after dkm\.prepare"):
            fit_quietly(model, batches(), optimizer=optimizer)

    def test_an_interval_that_diverged(self):
        model, learned = _layer(dkm.PaletteSpec(2))
        with torch.no_grad():
            learned[0, 1] = torch.nan
        with pytest.raises(dkm.DkmError, match=r"weight: the weights hold NaN .* after step 1"):
            dkm.step(model)

    def test_scaling(self):
        with pytest.raises(dkm.DkmError, match="scaling is -1"):
            dkm.EWGS(scaling=-1)

    def test_a_delta_of_another_method(self):
        model, _ = _layer(dkm.PaletteSpec(2), method="ste")
        with pytest.raises(dkm.DkmError, match=r"weight: its method is HardSTE.* has no delta"):
            dkm.update_ewgs_scaling(model, lambda: model.weight.square().sum())

    def test_a_delta_of_a_loss_without_curvature_to_differentiate(self):
        model, _ = _layer(dkm.PaletteSpec(2))
        with pytest.raises(dkm.DkmError, match="cannot be differentiated twice"):
            dkm.update_ewgs_scaling(model, lambda: model.weight.detach().sum())

    def test_a_delta_of_a_loss_that_is_infinite(self):
        model, _ = _layer(dkm.PaletteSpec(2))
        with pytest.raises(dkm.DkmError, match="weight: the loss's derivatives .* not finite"):
            dkm.update_ewgs_scaling(model, lambda: model.weight.square().sum() * torch.inf)
