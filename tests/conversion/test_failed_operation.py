"""What a library cannot convert is told with the operation and the layer."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from torch import Tensor, nn

import dkm_deploy as dkm
from dkm_deploy.conversion.failed_operation import failure_place
from tests.converters.coreai.assets import EXTRA


class _Third(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.kthvalue(3).values


class _Special(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.digamma(x)


class _Usual(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mode().values


class _Sums(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.logcumsumexp(1)


def _model(layer: nn.Module) -> nn.Module:
    body = nn.Sequential(nn.Conv2d(3, 4, 3), layer)
    return dkm.palettize(nn.Sequential(body), 4)


CORE_AI = pytest.mark.skipif(not find_spec("coreai_torch"), reason=EXTRA)
CASES = [
    pytest.param(".aimodel", _Usual(), "mode", marks=CORE_AI),
    pytest.param(".aimodel", _Sums(), "logcumsumexp", marks=CORE_AI),
    (".mlpackage", nn.AvgPool2d(2, ceil_mode=True, divisor_override=3), "avg_pool2d"),
    (".mlpackage", _Special(), "digamma"),
    (".onnx", _Third(), "kthvalue"),
]


@pytest.mark.parametrize(("suffix", "layer", "operation"), CASES)
def test_the_operation_and_the_layer_are_told(tmp_path, suffix, layer, operation):
    with pytest.raises(dkm.DkmError) as caught:
        dkm.convert(_model(layer), torch.randn(1, 3, 16, 16), tmp_path / f"m{suffix}")

    assert str(caught.value).endswith(f" (at aten.{operation}.default in layer 0.1)")
    assert "\n" not in str(caught.value)


def test_nothing_is_told_of_an_error_that_has_no_operation():
    program = torch.export.export(nn.ReLU(), (torch.ones(2),))

    assert failure_place(ValueError("the disk is old"), program) == ""
    assert failure_place(ValueError("no aten.relu.default"), program) == " (at aten.relu.default)"
