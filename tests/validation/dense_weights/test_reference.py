"""The weights of a model that have no palette, by the names that files have them under."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrizations

import dkm_deploy as dkm
from dkm_deploy.validation.dense_weights.reference import DenseReference, dense_reference


class Net(nn.Module):
    """Every way in which a module may hold a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.tied = nn.Linear(2, 2), nn.Linear(2, 2)
        self.tied.weight = self.first.weight
        self.made = parametrizations.weight_norm(nn.Linear(2, 3))
        self.narrow = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
        self.register_buffer("places", torch.arange(4))
        self.register_buffer("scale", torch.ones(3), persistent=False)
        self.plain, self.count, self.text = torch.full((2,), 0.5), torch.tensor(3), "text"


def test_every_floating_point_tensor_that_is_computed_with_once():
    model = Net()
    found = dense_reference(model)
    assert list(found.tensors) == [
        *("narrow", "scale", "plain", "first.weight", "first.bias", "tied.bias"),
        *("made.bias", "made.weight"),
    ]
    np.testing.assert_array_equal(found.tensors["made.weight"], model.made.weight.detach())
    np.testing.assert_array_equal(found.tensors["plain"], [0.5, 0.5])
    assert found.tensors["narrow"].dtype == np.float32
    assert np.shares_memory(found.tensors["first.weight"], model.first.weight.detach().numpy())
    assert found.epsilons == {}


def test_weights_with_a_palette_are_not_dense():
    model = nn.Sequential(nn.Linear(8, 8), parametrizations.weight_norm(nn.Linear(8, 8))).eval()
    frozen = dkm.palettize(model, dkm.Recipe(dkm.PaletteSpec(2), [dkm.Rule("1*", skip=True)]))
    assert set(dense_reference(frozen).tensors) == {"0.bias", "1.weight", "1.bias"}


def test_normalizations_with_running_statistics_have_an_epsilon():
    model = nn.Sequential(
        nn.BatchNorm1d(2, eps=1),
        nn.BatchNorm1d(2, track_running_stats=False),
        nn.LayerNorm(2),
        nn.InstanceNorm1d(2, eps=0.25, track_running_stats=True),
        nn.Sequential(nn.BatchNorm1d(2, eps=0.5)),
    )
    model[3].eps = "none"
    model[0].eps = 0.125
    assert dense_reference(model).epsilons == {"0": 0.125, "4.0": 0.5}
    assert dense_reference(model[0]).epsilons == {"": 0.125}


def test_the_vectors_of_a_normalization():
    vectors = {name: np.full(2, n) for n, name in enumerate(("weight", "bias", "running_var"))}
    found = DenseReference({f"n.{name}": a for name, a in vectors.items()}, {}).of_norm("n")
    assert list(found) == ["running_var", "weight", "bias"]
    assert {name: a[0] for name, a in found.items()} == {"weight": 0, "bias": 1, "running_var": 2}
    assert set(DenseReference(vectors, {}).of_norm("")) == set(vectors)
    assert DenseReference(vectors, {}).of_norm("n") == {}
