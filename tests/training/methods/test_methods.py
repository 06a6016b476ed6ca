from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from tests.models import TRAINABLE, images, small_net

ALL = ["dkm", "ste", "ewgs", "gwk", dkm.DKM(gradient="implicit"), dkm.DKM(gradient="one_step")]


def _train(model, steps=10):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = []
    for _ in range(steps):
        loss = model(images()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        dkm.step(model)
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("method", ALL, ids=str)
def test_every_method_trains_and_freezes(method):
    model = dkm.prepare(small_net(), TRAINABLE, method=method).train()
    losses = _train(model)
    assert losses[-1] < losses[0]
    frozen = dkm.freeze(model)
    assert torch.equal(frozen(images()), model.eval()(images()))


@pytest.mark.parametrize("method", ["ste", "ewgs"])
def test_hard_methods_have_no_gap_and_no_temperature(method):
    status = dkm.status(dkm.prepare(small_net(), TRAINABLE, method=method))["stem.weight"]
    assert status.temperature == 0
    assert status.soft_hard_gap < 1e-6


def _normal(scale=1.0, count=64):
    layer = nn.Linear(count, count, bias=False)
    with torch.no_grad():
        layer.weight.normal_(0, scale, generator=torch.Generator().manual_seed(0))
    return layer


def _heavy_tailed(count):
    """Student's t with 5 degrees of freedom."""
    random = np.random.default_rng(0)
    layer = nn.Linear(count, count, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(random.standard_t(5, (count, count))))
    return layer


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize(
    "scale", [1e-3, *(pytest.param(scale, marks=pytest.mark.slow) for scale in (0.02, 1.0))]
)
def test_the_default_temperature_holds_at_every_width_and_scale(bits, scale):
    """A fixed absolute temperature collapses small weights in silence; this must not."""
    model = dkm.prepare(_normal(scale), dkm.Recipe.uniform(bits)).train()
    before = dkm.freeze(model).weight
    for _ in range(40):
        model(torch.zeros(1, 64))
    (status,) = dkm.status(model).values()
    assert status.distinct_centroids == 1 << bits
    weight = model.parametrizations.weight.original
    error = (dkm.freeze(model).weight - weight).square().sum()
    assert error <= 1.05 * (before - weight).square().sum()


class TestTemperature:
    @pytest.mark.parametrize(("bits", "relative"), [(1, 0.2), (2, 0.05), (3, 0.025), (4, 0.0125)])
    def test_the_default_falls_with_the_bits(self, bits, relative):
        model = dkm.prepare(_normal(), dkm.Recipe.uniform(bits))
        assert dkm.status(model)["weight"].temperature == pytest.approx(relative)

    def test_the_default_goes_by_the_bits_of_a_value(self):
        recipe = dkm.Recipe(dkm.PaletteSpec(bits=3, cluster_dim=2))
        model = dkm.prepare(_normal(), recipe)
        assert dkm.status(model)["weight"].temperature == pytest.approx(0.1)

    def test_few_weights_far_out_do_not_ease_it(self):
        """A sample of the weight has too few of them to tell whether their centroids merge."""
        layer = _heavy_tailed(256)
        model = dkm.prepare(layer, dkm.Recipe.uniform(8)).train()
        assert dkm.status(model)["weight"].temperature == pytest.approx(0.2 / 4**6)
        for _ in range(30):
            model(torch.zeros(1, 256))
        assert dkm.status(model)["weight"].repaired == 0

    @pytest.mark.parametrize("bits", [4, 6, 8])
    def test_few_weights_feel_their_gradient_many_times_over(self, bits):
        """Up to ``distance**2 / (2 tau)`` times it does, halfway between two centroids."""
        layer = _normal()
        weight = layer.weight
        # With signs, for the sum of soft weights is that of the weights.
        signs = torch.from_numpy(np.random.default_rng(0).choice([-1.0, 1.0], (64, 64))).float()
        dkm.prepare(layer, dkm.Recipe.uniform(bits)).train()
        (signs * layer.weight).sum().backward()
        assert weight.grad.abs().quantile(0.98) < 5

    def test_one_that_merges_centroids_is_refused_with_one_that_does_not(self):
        with pytest.raises(dkm.DkmError, match=r"^weight: the temperature 1 .*4 bits: .* is low"):
            dkm.prepare(_normal(), dkm.Recipe.uniform(4), method=dkm.DKM(temperature=1.0))

    def test_an_absolute_one_is_judged_by_the_layer(self):
        """coremltools' default: right for one layer, and one centroid for another."""
        method = dkm.DKM(tau_absolute=1e-4)
        dkm.prepare(_normal(0.1), dkm.Recipe.uniform(4), method=method)
        with pytest.raises(dkm.DkmError, match="too high for 4 bits"):
            dkm.prepare(_normal(0.005), dkm.Recipe.uniform(4), method=method)

    def test_a_schedule_is_judged_by_its_end(self):
        recipe = dkm.Recipe(dkm.PaletteSpec(4), schedule=dkm.Schedule(steps=400, end=1e-3))
        model = dkm.prepare(_normal(), recipe, method=dkm.DKM(temperature=3.0)).train()
        for _ in range(450):
            model(torch.zeros(1, 64))
            dkm.step(model)
        (status,) = dkm.status(model).values()
        assert status.temperature == pytest.approx(3e-3)
        assert status.repaired > 0  # the hot start merged centroids, and they were sent off again
        assert status.distinct_centroids == 16

    def test_the_gap_follows_its_schedule(self):
        recipe = dkm.Recipe(dkm.PaletteSpec(2), schedule=dkm.Schedule(steps=400, gap=0.01))
        model = dkm.prepare(_normal(), recipe).train()
        (first,) = dkm.status(model).values()
        assert first.soft_hard_gap > 0.03
        for _ in range(450):
            dkm.step(model)
        (last,) = dkm.status(model).values()
        assert last.soft_hard_gap == pytest.approx(0.01, rel=0.1)
        assert last.temperature < first.temperature

    @pytest.mark.parametrize(
        ("gap", "factor"), [(1e-9, 0.5), (0.99, 1.5), (0.8, None), (1.25, None)]
    )
    def test_the_temperature_never_jumps(self, gap, factor):
        """It is corrected by how far the gap is from where it should be, and by half at most."""
        recipe = dkm.Recipe(dkm.PaletteSpec(2), schedule=dkm.Schedule(steps=10, gap=0.01))
        model = dkm.prepare(_normal(), recipe).train()
        soft = model.parametrizations.weight[0]
        now = float(soft.gap(model.parametrizations.weight.original.detach()))
        soft.schedule = dkm.Schedule(steps=10, gap=gap if factor else gap * now)
        before = float(soft.tau(torch.ones(1)))
        dkm.step(model, 10)
        expected = factor or gap
        assert float(soft.tau(torch.ones(1))) / before == pytest.approx(expected, rel=1e-5)


def _rule(spec: dkm.PaletteSpec) -> dkm.Recipe:
    """What must fit, unlike a default."""
    return dkm.Recipe(rules=[dkm.Rule(spec=spec)])


class TestBadInput:
    def test_more_clusters_than_distinct_values(self):
        with pytest.raises(dkm.DkmError, match="weight: 256 clusters for 40 distinct values; .* 5"):
            dkm.prepare(nn.Linear(8, 5), _rule(dkm.PaletteSpec(8)))

    def test_more_clusters_than_distinct_vectors_in_a_group(self):
        spec = dkm.PaletteSpec(bits=4, cluster_dim=4, group_size=4)
        with pytest.raises(dkm.DkmError, match="weight: 16 clusters for 8 distinct vectors"):
            dkm.prepare(nn.Linear(8, 16), _rule(spec))

    def test_a_layer_of_zeros(self):
        model = nn.Linear(8, 8)
        nn.init.zeros_(model.weight)
        with pytest.raises(dkm.DkmError, match=r"weight: 4 clusters for 1 distinct values; .*skip"):
            dkm.prepare(model, _rule(dkm.PaletteSpec(2)))

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: dkm.DKM(tau_absolute=-1), "tau_absolute is -1"),
            (lambda: dkm.DKM(temperature=0.1, tau_absolute=1e-5), "not both"),
            (lambda: dkm.DKM(gradient="magic"), "gradient is 'magic'"),
            (lambda: dkm.HardSTE(scaling=-1), "scaling is -1"),
        ],
    )
    def test_options(self, make, message):
        with pytest.raises(dkm.DkmError, match=message):
            make()

    def test_divergence_names_the_parameter_and_the_step_and_keeps_the_centroids(self):
        model = dkm.prepare(small_net(), TRAINABLE).train()
        _train(model, 3)
        kept = copy.deepcopy(model.stem.parametrizations.weight[0].centroids)
        with torch.no_grad():
            model.stem.parametrizations.weight.original[0, 0, 0, 0] = torch.nan
        model(images())
        with pytest.raises(dkm.DkmError, match=r"stem\.weight: .*NaN or infinity after step 4"):
            dkm.step(model)
        assert torch.equal(model.stem.parametrizations.weight[0].centroids, kept)
