"""Arguments that PyTorch's ONNX exporter leaves out are refused with the layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from converters.onnx.writing.dropped_arguments import refuse_left_out
from dkm_deploy.errors import DkmError

IMAGE, PLACES = torch.ones(1, 2, 4, 4), torch.zeros(2, 4, dtype=torch.int64)


class Scatter(nn.Module):
    def __init__(self, reduce):
        super().__init__()
        self.reduce = reduce

    def forward(self, x):
        return x.scatter_reduce(0, PLACES, x, self.reduce)


class Elu(nn.Module):
    def forward(self, x):
        return torch.ops.aten.elu(x, 1, 1, 2)


@pytest.mark.parametrize(
    ("layer", "x", "left_out"),
    [
        (nn.AvgPool2d(2, divisor_override=3), IMAGE, "divisor_override=3 of aten.avg_pool2d"),
        (nn.AvgPool3d(2, divisor_override=3), IMAGE, "divisor_override=3 of aten.avg_pool3d"),
        (Scatter("mean"), IMAGE[0, 0, :2], "reduce=mean of aten.scatter_reduce.two"),
        (Elu(), IMAGE, "input_scale=2 of aten.elu"),
        (nn.AvgPool2d(2), IMAGE, None),
        (Scatter("sum"), IMAGE[0, 0, :2], None),
        (nn.SELU(), IMAGE, None),
    ],
)
def test_what_is_left_out(layer, x, left_out):
    program = torch.export.export(nn.Sequential(nn.ReLU(), layer).eval(), (x,))
    if left_out is None:
        refuse_left_out(program)
        return
    with pytest.raises(DkmError, match=f"^1: PyTorch's ONNX exporter would leave out {left_out}"):
        refuse_left_out(program)
