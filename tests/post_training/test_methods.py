"""Palettes after training, by methods that look at more than the weights."""

from __future__ import annotations

import copy
import weakref
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.post_training.sensitivity import squared_gradients
from tests.models import TiedNet, images, small_net


def _linear(inputs=6, outputs=3, seed=0):
    torch.manual_seed(seed)
    return nn.Linear(inputs, outputs).eval()


def test_squared_gradients_of_labels_are_those_of_each_sample():
    """With one sample a batch, the sum over batches is the diagonal of the empirical Fisher."""
    model, x, y = _linear(), torch.randn(5, 6), torch.tensor([0, 2, 1, 0, 1])
    found = squared_gradients(model, ["weight"], [(x[i : i + 1], y[i : i + 1]) for i in range(5)])
    errors = model(x).softmax(1) - nn.functional.one_hot(y, 3)
    expected = (errors.square()[:, :, None] * x.square()[:, None, :]).sum(0)
    torch.testing.assert_close(found["weight"], expected.detach())


def test_without_labels_they_are_the_relative_error_of_the_outputs():
    model, x = _linear(), torch.randn(8_000, 6, generator=torch.Generator().manual_seed(0))
    found = squared_gradients(model, ["weight"], x)["weight"]
    sizes = [model(part).square().sum() for part in x.split(16)]
    expected = sum(
        len(part) * part.square().sum(0) / size
        for part, size in zip(x.split(16), sizes, strict=True)
    )
    torch.testing.assert_close(found, expected.detach().expand(3, -1), rtol=0.3, atol=0)


def test_calibration_is_streamed():
    """Of a generator's batches the one at work is alive, and the one before it at most."""
    model, made, most = _linear(), [], 0

    def batches():
        nonlocal most
        for seed in range(20):
            batch = torch.randn(3, 6, generator=torch.Generator().manual_seed(seed))
            made.append(weakref.ref(batch))
            most = max(most, sum(ref() is not None for ref in made))
            yield batch

    squared_gradients(model, ["weight"], batches())
    assert len(made) == 20
    assert most <= 2


def test_the_model_and_its_gradients_are_left_alone():
    model = small_net().train()
    before = copy.deepcopy(model.state_dict())
    dkm.palettize(model, dkm.Recipe.uniform(2), "sensitive", images())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_what_the_outputs_mind_is_kept_better():
    """Inputs 0 to 2 are a hundred times as large as the others, and their weights a tenth."""
    model = _linear(60, 10)
    with torch.no_grad():
        model.weight[:, :3] *= 0.1
    x = torch.randn(64, 60, generator=torch.Generator().manual_seed(0))
    x[:, :3] *= 100
    recipe = dkm.Recipe.uniform(2)
    errors = {
        method: (dkm.palettize(model, recipe, method, data)(x) - model(x)).norm().item()
        for method, data in (("kmeans", None), ("sensitive", x))
    }
    assert errors["sensitive"] < 0.5 * errors["kmeans"]


@pytest.mark.parametrize(
    "spec", [{"cluster_dim": 2}, {"group_size": 4}, {"per_channel_scale": True}]
)
def test_every_layout(spec):
    model = small_net()
    recipe = dkm.Recipe(rules=[dkm.Rule("stem.weight", spec=dkm.PaletteSpec(bits=2, **spec))])
    found = dkm.palettes(dkm.palettize(model, recipe, "sensitive", images()))["stem.weight"]
    plain = dkm.palettes(dkm.palettize(model, recipe))["stem.weight"]
    assert found.groups == plain.groups
    assert found.cluster_dim == plain.cluster_dim
    assert not np.array_equal(found.lut, plain.lut)


def test_tied_weights_get_the_gradients_of_all_uses():
    ids = torch.randint(0, 20, (8, 5), generator=torch.Generator().manual_seed(0))
    found = squared_gradients(TiedNet().eval(), ["embed.weight"], ids)
    assert (found["embed.weight"].sum(1) > 0).all()  # also of rows that are no input


def test_a_loss_of_the_users_own():
    model, x, y = _linear(), torch.randn(32, 6), torch.randn(32, 3)
    seen = []

    def _loss(outputs, labels):
        seen.append(labels)
        return (outputs - labels).square().mean()

    recipe = dkm.Recipe.uniform(2)
    found = dkm.palettes(dkm.palettize(model, recipe, dkm.SensitiveKMeans(loss=_loss), [(x, y)]))
    assert torch.equal(seen[0], y)
    assert found["weight"].bits == 2


def test_a_weight_without_gradient_gets_plain_k_means():
    model = small_net()
    model.spare = nn.Linear(8, 8)
    recipe = dkm.Recipe.uniform(2)
    found = dkm.palettes(dkm.palettize(model, recipe, "sensitive", images()))
    assert found["spare.weight"] == dkm.palettes(dkm.palettize(model, recipe))["spare.weight"]


def test_a_recipe_of_nothing():
    recipe = dkm.Recipe(rules=[dkm.Rule("weight", skip=True)])
    frozen = dkm.palettize(_linear(), recipe, "sensitive", torch.zeros(2, 6))
    assert dkm.palettes(frozen) == {}


def test_the_result_is_the_same_on_every_run():
    recipe, batches = dkm.Recipe.uniform(3), [images(4, seed) for seed in range(3)]
    once, again = (
        dkm.palettes(dkm.palettize(small_net(), recipe, "sensitive", data))
        for data in (batches, iter(batches))
    )
    assert once == again


@dataclass(frozen=True)
class _Zeros:
    """A method from outside the package."""

    calibrated = False

    def palettes(self, model, specs, calibration):
        for name in specs:
            shape = tuple(model.get_parameter(name).shape)
            lut = np.zeros((*[1] * len(shape), 2, 1), np.float32)
            yield name, dkm.Palette(np.zeros(shape, np.uint8), lut)


def test_a_method_of_the_users_own():
    frozen = dkm.palettize(_linear(), dkm.Recipe.uniform(1), _Zeros())
    assert not frozen.weight.any()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "method sensitive weighs weights by gradients"),
        ([], "calibration has no batch"),
        (3, "calibration is 3; give a tensor or batches"),
        ([torch.zeros(2, 5)], "does not run on calibration batch 1"),
        ([torch.zeros(1, 6), torch.full((1, 6), torch.nan)], "NaN or infinite in batch 2"),
        ([(torch.zeros(1, 6), torch.zeros(1, dtype=torch.long), 0)], "a batch has 3 parts"),
        ({"input": torch.zeros(2, 6), "other": torch.zeros(3, 6)}, "have [2, 3] samples"),
    ],
)
def test_bad_calibration(data, message):
    with pytest.raises(dkm.DkmError) as caught:
        dkm.palettize(_linear(), dkm.Recipe.uniform(2), "sensitive", data)
    assert message in str(caught.value)


def test_a_loss_that_is_no_scalar():
    method = dkm.SensitiveKMeans(loss=lambda outputs, labels: outputs)
    with pytest.raises(dkm.DkmError, match="it must be a tensor with one value"):
        dkm.palettize(_linear(), dkm.Recipe.uniform(2), method, torch.randn(4, 6))
