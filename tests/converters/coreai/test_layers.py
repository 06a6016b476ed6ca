"""Every kind of layer in Core AI, run by Apple's runtime: within 1e-4 of PyTorch in float32."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from tests.converters.coreai.assets import extra, outputs, relative_error
from tests.converters.coreml.programs import DotProduct

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
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, activation="gelu")
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(16, 30)

    def forward(self, ids):
        return self.out(self.blocks(self.norm(self.embed(ids))))


class Layers(nn.Module):
    """Layers side by side, one output each, by their names."""

    def __init__(self):
        super().__init__()
        norm, group = nn.BatchNorm2d(8), nn.GroupNorm(2, 8)
        self.layers = nn.ModuleDict(
            {
                "line_conv": nn.Conv1d(4, 6, 3, stride=2, padding=1),
                "line_transposed": nn.ConvTranspose1d(4, 6, 3, stride=2),
                "line_linear": nn.Linear(9, 7),
                "line_without_bias": nn.Linear(9, 7, bias=False),
                "line_layer_norm": nn.Sequential(nn.Linear(9, 8), nn.LayerNorm(8)),
                "line_rms_norm": nn.Sequential(nn.Linear(9, 8), nn.RMSNorm(8)),
                "line_attention": nn.Sequential(nn.Linear(9, 8), DotProduct()),
                "image_conv": nn.Conv2d(8, 6, 3, dilation=2),
                "image_transposed": nn.ConvTranspose2d(
                    8, 6, 3, stride=2, padding=1, output_padding=1
                ),
                "image_depthwise": nn.Conv2d(8, 8, 3, groups=8, padding=1),
                "image_grouped": nn.Conv2d(8, 8, 3, groups=2, padding=1),
                "image_batch_norm": nn.Sequential(nn.Conv2d(8, 8, 3), norm, nn.ReLU()),
                "image_group_norm": nn.Sequential(nn.Conv2d(8, 8, 3), group, nn.SiLU()),
                "volume_conv": nn.Conv3d(2, 4, 3),
                "volume_transposed": nn.ConvTranspose3d(
                    2, 4, 3, stride=2, padding=1, output_padding=1, groups=2
                ),
            }
        )

    def forward(self, line, image, volume):
        given = {"line": line, "image": image, "volume": volume}
        return {n: layer(given[n.partition("_")[0]]) for n, layer in self.layers.items()}


SEQUENCES = {
    "multihead attention": (Attention, (2, 5, 16)),
    "lstm": (lambda: Recurrent(nn.LSTM(6, 8, 2, batch_first=True)), (2, 4, 6)),
    "bidirectional gru": (lambda: Recurrent(nn.GRU(6, 8, bidirectional=True)), (3, 2, 6)),
}


def _check(model, inputs, path, limit=LIMIT, **options):
    frozen = dkm.palettize(model.eval(), dkm.Recipe.uniform(4))
    assert dkm.palettes(frozen)
    dkm.convert(frozen, inputs, path, **options)
    assert dkm.read_palettes(path).keys() == dkm.palettes(frozen).keys()
    with torch.no_grad():
        expected = frozen(*inputs)
    expected = expected if isinstance(expected, dict) else {"output": expected}
    found = outputs(path, *inputs)
    errors = {name: relative_error(found[name], value) for name, value in expected.items()}
    assert {name: error for name, error in errors.items() if error >= limit} == {}


def test_layers(tmp_path):
    torch.manual_seed(0)
    line, image, volume = torch.randn(2, 4, 9), torch.randn(2, 8, 9, 9), torch.randn(1, 2, 5, 5, 5)
    _check(Layers(), (line, image, volume), tmp_path / "m.aimodel")


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences(tmp_path, name):
    make, shape = SEQUENCES[name]
    torch.manual_seed(0)
    _check(make(), (torch.randn(shape),), tmp_path / "m.aimodel")


def test_what_coreai_torch_lacks_is_refused_with_its_reason(tmp_path):
    class Inverse(nn.Module):
        def forward(self, x):
            return torch.linalg.inv(x)

    with pytest.raises(
        dkm.DkmError, match="^coreai-torch cannot convert the model: .*linalg_inv_ex"
    ):
        dkm.convert(Inverse().eval(), torch.eye(3), tmp_path / "m.aimodel")


@pytest.mark.parametrize(("precision", "limit"), [("float32", LIMIT), ("float16", 1e-2)])
def test_embedding_and_transformer(tmp_path, precision, limit):
    torch.manual_seed(0)
    ids = torch.randint(0, 30, (2, 6))
    _check(Words(), (ids,), tmp_path / "m.aimodel", limit, compute_precision=precision)
