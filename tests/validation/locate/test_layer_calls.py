"""What the layers of a PyTorch model take and make, noted while it runs."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.validation.locate.layer_calls import (
    LayerCall,
    find_layer_calls,
    layer_values,
    layers_of,
    weights_of,
)


def test_each_call_has_its_shapes_and_only_wanted_values_are_kept():
    first, twice = nn.Linear(4, 3), nn.Linear(3, 3)
    model, x = nn.Sequential(first, twice, twice).eval(), torch.randn(300, 4)
    calls = find_layer_calls(model, x, ["0", "1"])  # more samples than a model runs on at a time
    assert calls == [
        LayerCall("0", (300, 4), (300, 3)),
        LayerCall("1", (300, 3), (300, 3)),
        LayerCall("1", (300, 3), (300, 3)),
    ]
    values = layer_values(model, x, ["0", "1"], {2})
    assert list(values) == [2]
    np.testing.assert_array_equal(values[2].output, model(x).detach())


def test_a_value_is_kept_as_it_was_before_it_is_changed_in_place():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True)).eval()
    assert layer_values(model, torch.randn(8, 4), ["0"], {0})[0].output.min() < 0


class Part(nn.Module):
    """Gives its input as ``form`` makes it."""

    def __init__(self, form):
        super().__init__()
        self.form = form

    def forward(self, *values):
        return self.form(*values)


def test_a_layer_is_seen_by_the_first_tensor_that_it_takes_and_makes():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.pair = Part(lambda x, y: (y, x))
            self.none, self.named = Part(lambda x: ()), Part(lambda x: {"x": x})
            self.nested, self.keyed = Part(lambda x: ((x,), x)), Part(lambda: torch.ones(1))

        def forward(self, x):
            self.none(x), self.named(x), self.nested(x), self.keyed()
            return self.pair(x, x[:, :2])[0]

    names = ("pair", "none", "named", "nested", "keyed")
    assert find_layer_calls(Net().eval(), torch.ones(3, 4), names) == [
        LayerCall("pair", (3, 4), (3, 2))
    ]


def test_values_are_float32():
    model = nn.Sequential(nn.Linear(4, 4)).double().eval()
    found = layer_values(model, torch.ones(2, 4).double(), ["0"], {0})[0]
    assert found.input.dtype == found.output.dtype == np.float32


def test_a_layer_is_told_by_its_weights_and_not_by_its_bias():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.GRU(4, 4, bias=False)))
    model.scale = nn.Parameter(torch.ones(1))  # no layer's
    frozen = dkm.palettize(model.eval(), dkm.Recipe(rules=[dkm.Rule("1.0.*", dkm.PaletteSpec(2))]))
    weights = weights_of(frozen)
    assert weights == ["1.0.weight", "0.weight", "1.1.weight_ih_l0", "1.1.weight_hh_l0"]
    assert layers_of(weights) == ["1.0", "0", "1.1"]
