"""Op for op the dense program: palettes add constant decode operations and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from tests.converters.coreml.programs import (
    Attention,
    DotProduct,
    First,
    MatrixProduct,
    operations,
    without_decodes,
)
from tests.models import Beside, TiedNet, images, small_net

DECODE = "constexpr_lut_to_dense"
SEQUENCE = (2, 5, 8)


def _encoder(**options):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **options)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


# Layers that read the same input, in one program: its shape, and how many weights they have.
LAYERS = {
    "matrix": (lambda: [nn.Linear(8, 6), MatrixProduct()], (3, 8), 2),
    "sequence": (
        lambda: [
            nn.Linear(8, 6, bias=False),
            nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)),
            nn.Sequential(nn.Linear(8, 8), nn.RMSNorm(8)),
            nn.Conv1d(5, 6, 3),
            nn.ConvTranspose1d(5, 6, 3),
        ],
        SEQUENCE,
        5,
    ),
    "attention": (lambda: [Attention(), DotProduct(), _encoder().layers[0]], SEQUENCE, 8),
    "image": (
        lambda: [
            nn.Conv2d(8, 6, 3, padding="same"),
            nn.Conv2d(8, 8, 3, groups=8),
            nn.Conv2d(8, 16, 3, groups=4),
            nn.ConvTranspose2d(8, 6, 3, 2, 1, 1),
            nn.Sequential(nn.Conv2d(8, 8, 3), nn.GroupNorm(2, 8)),
            nn.Conv2d(8, 6, (3, 5), padding=(1, 2), padding_mode="circular"),
            nn.Conv2d(8, 6, 3, padding=1, padding_mode="reflect"),
        ],
        (1, 8, 7, 7),
        7,
    ),
    "volume": (lambda: [nn.Conv3d(4, 6, 3), nn.ConvTranspose3d(4, 6, 3)], (1, 4, 5, 5, 5), 2),
    "recurrent": (
        lambda: [
            First(nn.LSTM(8, 6)),
            First(nn.LSTM(8, 6, bidirectional=True, batch_first=True)),
            First(nn.GRU(8, 6, batch_first=True)),
            First(nn.RNN(8, 6)),
            First(nn.RNN(8, 6, nonlinearity="relu", bidirectional=True)),
        ],
        SEQUENCE,
        14,
    ),
}


def _both(model, x, tmp_path, recipe=None, **options):
    """Operations of the dense and of the palettized program."""
    frozen = dkm.palettize(model, recipe or dkm.Recipe.uniform(2))
    return [
        operations(dkm.convert(each, x, tmp_path / "m.mlpackage", force=True, **options))
        for each in (model, frozen)
    ]


@pytest.mark.parametrize(
    ("layers", "target"),
    [
        *((layers, "iOS18") for layers in LAYERS),
        ("image", "iOS16"),
        *(pytest.param(n, "iOS16", marks=pytest.mark.slow) for n in LAYERS if n != "image"),
    ],
)
def test_every_layer(tmp_path, layers, target):
    torch.manual_seed(0)
    make, shape, weights = LAYERS[layers]
    dense, found = _both(
        Beside(make()).eval(), torch.randn(shape), tmp_path, minimum_deployment_target=target
    )
    assert without_decodes(found) == dense
    assert found[DECODE] == weights


@pytest.mark.parametrize(
    "spec",
    [
        dkm.PaletteSpec(bits=2, group_size=2),
        dkm.PaletteSpec(bits=2, cluster_dim=2),
        dkm.PaletteSpec(bits=2, per_channel_scale=True),
    ],
)
def test_every_kind_of_palette(tmp_path, spec):
    torch.manual_seed(0)
    model = Beside([nn.Linear(8, 6), nn.Conv1d(4, 6, 3), nn.ConvTranspose1d(4, 6, 3)]).eval()
    x, options = torch.randn(2, 4, 8), {"minimum_deployment_target": "iOS26"}
    dense, found = _both(model, x, tmp_path, dkm.Recipe(spec), **options)
    assert without_decodes(found) == dense
    assert found[DECODE] == 3


def test_an_embedding_and_a_tied_weight_is_decoded_once(tmp_path):
    ids = torch.zeros(1, 4, dtype=torch.int64)
    dense, found = _both(TiedNet().eval(), ids, tmp_path)
    assert without_decodes(found) == dense
    assert found[DECODE] == 2


def test_equal_layers_are_stored_once_and_keep_their_names(tmp_path):
    frozen = dkm.palettize(_encoder().eval(), dkm.Recipe.uniform(2))
    artifact = dkm.convert(frozen, torch.randn(SEQUENCE), tmp_path / "m.mlpackage")
    expected = {n: p.astype("float16") for n, p in dkm.palettes(frozen).items()}
    assert dkm.read_palettes(artifact) == expected
    assert len(expected) == 8
    assert operations(artifact)[DECODE] == 4


def test_batch_norm_costs_nothing_once_folded_and_is_told_of_otherwise(tmp_path):
    model, x = small_net(), images(1)
    dense, found = _both(dkm.fold_batch_norm(model, x), x, tmp_path)
    assert without_decodes(found) == dense
    assert dense["batch_norm"] == 0
    frozen = dkm.palettize(model, dkm.Recipe.uniform(2))
    artifact = dkm.convert(frozen, x, tmp_path / "unfolded.mlpackage")
    assert operations(artifact)["batch_norm"] == 1
    (note,) = artifact.notes
    assert note.startswith("1 BatchNorms after palettized layers stay operations")
    assert note.endswith("dkm.fold_batch_norm before clustering: norm")
