"""Every kind of layer in Core AI, run by Apple's runtime: within 1e-4 of PyTorch in float32."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from tests.converters.coreai_assets import extra, output, relative_error

extra()

LIMIT = 1e-4


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


class Recurrent(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.norm = nn.Embedding(30, 16), nn.LayerNorm(16)
        self.block = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, activation="gelu")
        self.out = nn.Linear(16, 30)

    def forward(self, ids):
        return self.out(self.block(self.norm(self.embed(ids))))


MODELS = {
    "linear": (lambda: nn.Linear(12, 7), (3, 12)),
    "linear without bias": (lambda: nn.Linear(12, 7, bias=False), (2, 3, 12)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1), (2, 4, 9)),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3, dilation=2), (2, 4, 9, 9)),
    "conv3d": (lambda: nn.Conv3d(2, 4, 3), (1, 2, 5, 5, 5)),
    "conv transpose1d": (lambda: nn.ConvTranspose1d(4, 6, 3, stride=2), (2, 4, 7)),
    "conv transpose2d": (
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1),
        (2, 4, 5, 5),
    ),
    "depthwise": (lambda: nn.Conv2d(8, 8, 3, groups=8, padding=1), (1, 8, 6, 6)),
    "grouped": (lambda: nn.Conv2d(8, 8, 3, groups=2, padding=1), (1, 8, 6, 6)),
    "multihead attention": (Attention, (2, 5, 16)),
    "group norm": (
        lambda: nn.Sequential(nn.Conv2d(4, 8, 3), nn.GroupNorm(2, 8), nn.SiLU()),
        (1, 4, 6, 6),
    ),
    "batch norm": (
        lambda: nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU()),
        (1, 4, 6, 6),
    ),
    "lstm": (lambda: Recurrent(nn.LSTM(6, 8, 2, batch_first=True)), (2, 5, 6)),
    "bidirectional lstm": (lambda: Recurrent(nn.LSTM(6, 8, bidirectional=True)), (4, 2, 6)),
    "gru": (lambda: Recurrent(nn.GRU(6, 8, batch_first=True)), (2, 5, 6)),
}


def _check(model, x, path, limit=LIMIT, **options):
    frozen = dkm.palettize(model.eval(), dkm.Recipe.uniform(4))
    assert dkm.palettes(frozen)
    dkm.convert(frozen, x, path, **options)
    assert set(dkm.read_palettes(path)) == set(dkm.palettes(frozen))
    with torch.no_grad():
        assert relative_error(output(path, x), frozen(x)) < limit


@pytest.mark.parametrize("name", MODELS)
def test_a_layer(tmp_path, name):
    make, shape = MODELS[name]
    torch.manual_seed(0)
    _check(make(), torch.randn(shape), tmp_path / "m.aimodel")


def test_a_layer_that_coreai_torch_lacks_is_refused_with_its_reason(tmp_path):
    frozen = dkm.palettize(nn.ConvTranspose3d(2, 4, 2), dkm.Recipe.uniform(2))
    with pytest.raises(
        dkm.DkmError, match="^coreai-torch cannot convert the model: .*Transposed conv3d is not yet"
    ):
        dkm.convert(frozen, torch.randn(1, 2, 3, 3, 3), tmp_path / "m.aimodel")


@pytest.mark.parametrize(("precision", "limit"), [("float32", LIMIT), ("float16", 1e-2)])
def test_embedding_and_transformer(tmp_path, precision, limit):
    torch.manual_seed(0)
    ids = torch.randint(0, 30, (2, 6))
    _check(Words(), ids, tmp_path / "m.aimodel", limit, compute_precision=precision)
