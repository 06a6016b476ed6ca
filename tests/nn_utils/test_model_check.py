"""Models that cannot be read are refused by the names of their layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import dkm_deploy as dkm

# torch.ao warns that it moves to torchao.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def _dynamic(model, *layers):
    return torch.ao.quantization.quantize_dynamic(model, set(layers))


def _convolution():
    layer = torch.ao.nn.quantized.Conv2d(1, 2, 3)
    return nn.Sequential(nn.Conv2d(1, 1, 3), layer)


def _tensor():
    model = nn.Linear(4, 4)
    model.register_buffer("table", torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8))
    return nn.ModuleDict({"inner": model})


@pytest.mark.parametrize(
    ("make", "layers"),
    [
        (lambda: _dynamic(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)), "0"), "0"),
        (lambda: _dynamic(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), nn.Linear), "0, 1"),
        (lambda: _dynamic(nn.Sequential(nn.LSTM(4, 4)), nn.LSTM), "0"),
        (lambda: _dynamic(nn.Sequential(*(nn.Linear(2, 2) for _ in range(7))), nn.Linear), ""),
        (lambda: torch.ao.nn.quantized.Linear(4, 4), "the model itself"),
        (_convolution, "1"),
        (_tensor, "inner"),
    ],
)
@pytest.mark.parametrize("use", [dkm.palettize, dkm.prepare])
def test_layers_that_torch_ao_quantised_are_refused_by_name(make, layers, use):
    layers = layers or "0, 1, 2, 3, 4 and 2 more"

    with pytest.raises(dkm.DkmError, match=f"model: quantized already by torch.ao: {layers};"):
        use(make(), 4)


def test_float_functions_of_torch_ao_are_no_quantised_layers():
    model = nn.Sequential(nn.Linear(4, 4))
    model.add = torch.ao.nn.quantized.FloatFunctional()

    assert dkm.palettize(model, 2)
