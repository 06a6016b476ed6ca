from __future__ import annotations

import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from tests.models import TRAINABLE, TiedNet, images, small_net

KINDS = ["l_inf", "margin", "soft_min_max"]


@pytest.mark.parametrize("kind", KINDS)
def test_only_weights_that_the_recipe_palettizes_are_restricted(kind):
    model = small_net()
    penalty = dkm.RangeLoss(model, TRAINABLE, kind)
    penalty().backward()
    touched = {name for name, p in model.named_parameters() if p.grad is not None}
    assert touched == {"stem.weight", "head.weight"}


def test_l_inf_is_the_sum_of_the_largest():
    model = small_net()
    expected = model.stem.weight.abs().max() + model.head.weight.abs().max()
    assert torch.equal(dkm.RangeLoss(model, TRAINABLE)(), expected)


@pytest.mark.parametrize(("kind", "numbers"), [("l_inf", 0), ("margin", 2), ("soft_min_max", 2)])
def test_its_parameters_are_what_it_learns_and_nothing_of_the_model(kind, numbers):
    penalty = dkm.RangeLoss(small_net(), TRAINABLE, kind)
    assert [p.ndim for p in penalty.parameters()] == [0] * numbers
    penalty().backward()
    assert all(p.grad is not None for p in penalty.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_training_with_it_narrows_the_range_that_centroids_must_cover(kind):
    def trained(factor):
        model = small_net()
        with torch.no_grad():
            model.stem.weight[0, 0, 0, 0] = 2.0  # an outlier
        penalty = dkm.RangeLoss(model, TRAINABLE, kind)
        parameters = [*model.parameters(), *penalty.parameters()]
        optimizer = torch.optim.SGD(parameters, lr=0.05)
        for _ in range(60):
            optimizer.zero_grad()
            (0.01 * model(images()).square().mean() + factor * penalty()).backward()
            optimizer.step()
        return (model.stem.weight.abs().max() / model.stem.weight.std()).item()

    assert trained(1.0) < 0.8 * trained(0.0)


def test_a_tied_weight_counts_once():
    model = TiedNet()
    expected = model.embed.weight.abs().max() + model.middle.weight.abs().max()
    assert torch.equal(dkm.RangeLoss(model, dkm.Recipe.uniform(2))(), expected)


def test_half_precision_adds_up_in_float32():
    model = nn.Linear(300, 300).half()
    assert dkm.RangeLoss(model, dkm.Recipe.uniform(1), "margin")().dtype == torch.float32


class TestBadInput:
    def test_kind(self):
        with pytest.raises(dkm.DkmError, match="kind is 'l2'; .* l_inf, margin, soft_min_max"):
            dkm.RangeLoss(small_net(), TRAINABLE, kind="l2")

    def test_a_recipe_that_palettizes_nothing(self):
        with pytest.raises(dkm.DkmError, match="palettizes no weight"):
            dkm.RangeLoss(small_net(), dkm.Recipe())

    def test_a_prepared_model(self):
        model = dkm.prepare(small_net(), TRAINABLE)
        with pytest.raises(dkm.DkmError, match="prepared before"):
            dkm.RangeLoss(model, TRAINABLE)
