"""What the ONNX exporter lacks or gets wrong is taken apart, and computes the same."""

from __future__ import annotations

import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

import dkm_deploy as dkm
from converters.onnx.writing.decompose import decompose


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


class BiasedAttention(nn.Module):
    """Self-attention of ``(n, t, 16)`` with a bias of places, its heads together by a reshape."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
        self.bias = nn.Parameter(torch.randn(1, 2, 4, 4))

    def forward(self, x):
        heads = [layer(x).view(*x.shape[:-1], 2, 8).transpose(1, 2) for layer in self.layers]
        bias = self.bias.transpose(-1, -2).contiguous()
        found = functional.scaled_dot_product_attention(*heads, attn_mask=bias)
        found = found.reshape(len(x), -1, *found.shape[2:]).transpose(1, 2).contiguous()
        return found.reshape(*x.shape[:-1], -1).contiguous()


def test_heads_are_put_together_wherever_they_lie_in_memory(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(2, 4, 16)
    model = BiasedAttention().eval()
    artifact = dkm.convert(model, x, tmp_path / "m.onnx")
    assert dkm.validate(artifact, reference=model, inputs=x)


class Experts(nn.Module):
    def forward(self, x, weight, ends):
        return torch.ops.aten._grouped_mm(x, weight, ends)


@pytest.mark.filterwarnings("ignore:.*LeafSpec")
def test_groups_of_rows_are_taken_apart():
    rows, weights = torch.ones(5, 16).bfloat16(), torch.ones(2, 16, 8).bfloat16()
    program = torch.export.export(Experts(), (rows, weights, torch.tensor([2, 5]).int()))
    calls = {node.target for node in decompose(program).graph.nodes}
    assert torch.ops.aten._grouped_mm.default not in calls
    assert torch.ops.aten.matmul.default in calls


class Unseen(nn.Module):
    """How much of ``(n, 16)`` whole numbers is not seen."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 4)

    def forward(self, mask):
        return self.layer((1.0 - mask) * 0.5)


def test_whole_numbers_are_subtracted_from_a_fraction(tmp_path):
    torch.manual_seed(0)
    mask = torch.randint(0, 4, (2, 16))
    model = Unseen().eval()
    artifact = dkm.convert(model, mask, tmp_path / "m.onnx")
    assert dkm.validate(artifact, reference=model, inputs=mask)
