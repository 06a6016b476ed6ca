"""An LSTM with projections in ONNX: all its weights are in the file, and it computes the same."""

from __future__ import annotations

import onnx
import pytest
import torch
from torch import nn

import dkm_deploy as dkm


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.plain = nn.LSTM(6, 8, batch_first=True)
        self.projected = nn.LSTM(8, 8, 2, proj_size=4, bidirectional=True, batch_first=True)

    def forward(self, x):
        return self.projected(self.plain(x)[0])[0]


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_projections_are_in_the_file_and_plain_layers_stay_whole(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(2, 2, 6)
    frozen = dkm.palettize(Encoder().eval(), 2)
    assert "projected.weight_hr_l1_reverse" in dkm.palettes(frozen)
    artifact = dkm.convert(frozen, x, tmp_path / "m.onnx")
    assert dkm.validate(artifact, reference=frozen, inputs=x)
    nodes = onnx.load(tmp_path / "m.onnx").graph.node
    assert [node.op_type for node in nodes].count("LSTM") == 1
