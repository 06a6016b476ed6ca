"""Gradient-weighted k-means: snaps, what weighs them, the steps between, and resumed runs."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.clustering.quantizers.int8_lut import on_grid
from tests.training.loop.runs import Killed, assert_same, batches, fit_quietly, kill_at

# Two clumps of three vectors of two values, far apart; the first weight has a tail of its own.
VECTORS = torch.tensor([[0.0, 0.1], [0.4, 0.2], [0.1, 0.9], [5.0, 5.2], [5.5, 5.1], [6.0, 4.0]])
SPEC = dkm.PaletteSpec(bits=1, cluster_dim=2, axis=1)


def _prepared(method, vectors=VECTORS, spec=SPEC):
    """A layer with a vector in each row, and its trained parameter."""
    layer = nn.Linear(vectors.shape[1], len(vectors), bias=False)
    with torch.no_grad():
        layer.weight.copy_(vectors)
    model = dkm.prepare(layer, dkm.Recipe(spec), method=method).train()
    return model, model.parametrizations.weight.original


def _best(vectors, masses):
    """By brute force: each row at the weighted mean of its part, of the best of all partitions."""
    found = []
    for labels in product([0, 1], repeat=len(vectors)):
        moved = vectors.clone()
        for label in (0, 1):
            part = torch.tensor(labels) == label
            if part.any():
                mass = masses[part][:, None]
                moved[part] = (mass * vectors[part]).sum(0) / mass.sum()
        found.append(((masses * (moved - vectors).square().sum(1)).sum().item(), moved))
    return min(found, key=lambda one: one[0])[1]


def _gradient(seed=0):
    return torch.randn(VECTORS.shape, generator=torch.Generator().manual_seed(seed))


def _step(model, weight, gradient):
    weight.grad = gradient.clone()
    dkm.step(model)


class TestSnap:
    def test_is_k_means_weighted_by_the_size_of_gradients(self):
        model, weight = _prepared(dkm.GWK(every=1))
        _step(model, weight, _gradient())
        expected = _best(VECTORS, _gradient().abs().mean(1))
        torch.testing.assert_close(weight.detach(), expected)
        assert (expected - _best(VECTORS, torch.ones(6))).abs().max() > 0.05

    def test_a_large_gradient_draws_its_centroid(self):
        model, weight = _prepared(dkm.GWK(every=1))
        gradient = torch.full_like(VECTORS, 0.01)
        gradient[2] = 1.0
        _step(model, weight, gradient)
        assert (weight[0] - VECTORS[2]).norm() < 0.05

    @pytest.mark.parametrize(
        ("gradients", "masses"),
        [
            ("mean", (_gradient(0).abs() + _gradient(1).abs()).mean(1)),
            ("last", _gradient(1).abs().mean(1)),
            ("none", torch.ones(6)),
        ],
    )
    def test_weighs_by_what_was_asked_for(self, gradients, masses):
        model, weight = _prepared(dkm.GWK(every=2, gradients=gradients))
        _step(model, weight, _gradient(0))
        assert torch.equal(weight.detach(), VECTORS)
        _step(model, weight, _gradient(1))
        torch.testing.assert_close(weight.detach(), _best(VECTORS, masses))

    def test_forgets_the_gradients_before_it(self):
        model, weight = _prepared(dkm.GWK(every=1))
        _step(model, weight, _gradient(0))
        with torch.no_grad():
            weight.copy_(VECTORS)
        _step(model, weight, _gradient(1))
        torch.testing.assert_close(weight.detach(), _best(VECTORS, _gradient(1).abs().mean(1)))

    def test_gradients_of_a_step_that_mixed_precision_skipped_count_nothing(self):
        model, weight = _prepared(dkm.GWK(every=2))
        _step(model, weight, torch.full_like(VECTORS, torch.inf))
        _step(model, weight, _gradient())
        torch.testing.assert_close(weight.detach(), _best(VECTORS, _gradient().abs().mean(1)))

    def test_with_a_per_channel_scale_weighs_what_is_clustered(self):
        """dL/d(w/s) is s dL/dw, and a row's s is its largest value."""
        spec = dkm.PaletteSpec(bits=1, cluster_dim=2, axis=1, per_channel_scale=True)
        model, weight = _prepared(dkm.GWK(every=1), spec=spec)
        _step(model, weight, _gradient())
        scale = VECTORS.abs().amax(1, keepdim=True)
        expected = scale * _best(VECTORS / scale, (_gradient() * scale).abs().mean(1))
        torch.testing.assert_close(weight.detach(), expected)

    def test_comes_once_an_interval_however_steps_are_counted(self):
        model, weight = _prepared(dkm.GWK(every=10))
        weight.grad = _gradient()
        dkm.step(model, 9)
        assert torch.equal(weight.detach(), VECTORS)
        dkm.step(model, 15)
        assert len(weight.unique(dim=0)) == 2


class TestBetweenSnaps:
    def test_training_sees_8_bits_and_eval_the_palette(self):
        model, _ = _prepared(dkm.GWK(), torch.randn(40, 2))
        seen = model.weight.detach()
        assert len(seen.unique(dim=0)) == 40
        assert on_grid(seen.numpy())
        assert len(model.eval().weight.unique(dim=0)) == 2

    def test_after_a_snap_the_weight_is_what_freeze_writes(self):
        model, weight = _prepared(dkm.GWK(every=1))
        _step(model, weight, _gradient())
        frozen = dkm.freeze(model)
        assert torch.equal(frozen.weight, weight)
        assert torch.equal(frozen.weight, model.eval().weight)
        palette = dkm.palettes(frozen)["weight"]
        assert palette.lut.shape == (1, 1, 2, 2)
        assert palette.indices.shape == (6, 1)

    def test_round_luts_gives_the_centroids_8_bits(self):
        model, weight = _prepared(dkm.GWK(every=1))
        _step(model, weight, _gradient())
        rounded = dkm.quantize_luts(dkm.freeze(model))
        torch.testing.assert_close(rounded.weight, model.train().weight, rtol=0, atol=5e-3)


class TestRuns:
    def _model(self, seed=0):
        torch.manual_seed(seed)
        method = dkm.GWK(every=3)
        return dkm.prepare(nn.Linear(16, 4), dkm.Recipe.uniform(2, cluster_dim=2), method)

    @pytest.mark.parametrize("last", [2, 4, 6])
    def test_resumed_between_and_at_snaps_give_the_same_bits(self, tmp_path, last):
        whole = self._model()
        fit_quietly(whole, batches(), epochs=2)
        options = {"epochs": 2, "checkpoint": tmp_path / "run.pt", "every": 1}
        with pytest.raises(Killed):
            fit_quietly(self._model(), batches(), after_step=kill_at(last), **options)
        resumed = self._model(seed=5)
        result = fit_quietly(resumed, batches(), **options)
        assert result.resumed_from == last - 1
        assert_same(resumed.state_dict(), whole.state_dict())

    def test_of_other_intervals_are_other_runs(self, tmp_path):
        fit_quietly(self._model(), batches(), checkpoint=tmp_path / "run.pt")
        torch.manual_seed(0)
        recipe = dkm.Recipe.uniform(2, cluster_dim=2)
        other = dkm.prepare(nn.Linear(16, 4), recipe, dkm.GWK(every=2))
        with pytest.raises(dkm.DkmError, match=r"palette of weight is .*every=3.* in this run"):
            fit_quietly(other, batches(), checkpoint=tmp_path / "run.pt")

    def test_below_one_bit_a_weight_learns_and_reaches_onnx(self, tmp_path):
        """3 bits for 8 input channels: 0.375 bits a weight and the LUT."""
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3))
        recipe = dkm.Recipe(rules=[dkm.Rule("0.weight", dkm.PaletteSpec(3, cluster_dim=8, axis=1))])
        images, labels = torch.randn(32, 8, 6, 6), torch.arange(32) % 3
        dkm.prepare(model, recipe, dkm.GWK(every=40), targets=("onnx", "coreml"))

        def loss():
            return nn.functional.cross_entropy(dkm.freeze(model)(images), labels).item()

        before = loss()
        fit_quietly(model, [(images, labels)] * 10, epochs=8, lr=0.1)
        assert loss() < 0.5 * before
        frozen = dkm.freeze(model)
        (palette,) = dkm.palettes(frozen).values()
        assert palette.indices.shape == (16, 1, 3, 3)
        assert palette.lut.shape == (1, 1, 1, 1, 8, 8)
        dkm.convert(frozen, (images,), tmp_path / "m.onnx")
        (read,) = dkm.read_palettes(tmp_path / "m.onnx").values()
        assert read == palette


class TestBadInput:
    @pytest.mark.parametrize("clear", [lambda w: None, torch.zeros_like])
    def test_gradients_cleared_before_advance(self, clear):
        model, weight = _prepared(dkm.GWK())
        weight.grad = clear(weight)
        with pytest.raises(dkm.DkmError, match=r"weight: GWK.* needs gradients.*before zero_grad"):
            dkm.step(model)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"every": 0}, "every is 0"),
            ({"gradients": "sum"}, "gradients is 'sum'; it must be one of mean, last, none"),
            ({"scaling": -1.0}, "scaling is -1"),
        ],
    )
    def test_options(self, options, message):
        with pytest.raises(dkm.DkmError, match=message):
            dkm.GWK(**options)
