"""What the layers of a PyTorch model take and make, noted while it runs."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from dkm_deploy.validation.locate.layer_calls import Call, calls_of, values_of


def test_each_call_has_its_shapes_and_only_wanted_values_are_kept():
    first, twice = nn.Linear(4, 3), nn.Linear(3, 3)
    model, x = nn.Sequential(first, twice, twice).eval(), torch.randn(300, 4)
    calls = calls_of(model, x, ["0", "1"])  # more samples than a model runs on at a time
    assert calls == [
        Call("0", (300, 4), (300, 3)),
        Call("1", (300, 3), (300, 3)),
        Call("1", (300, 3), (300, 3)),
    ]
    values = values_of(model, x, ["0", "1"], {2})
    assert list(values) == [2]
    np.testing.assert_array_equal(values[2].made, model(x).detach())


def test_a_value_is_kept_as_it_was_before_it_is_changed_in_place():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True)).eval()
    assert values_of(model, torch.randn(8, 4), ["0"], {0})[0].made.min() < 0
