"""Per-channel scales before iOS 26: in LUTs, one for each channel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.palette import difference
from tests.converters.coreml.programs import operations

SCALED = dkm.PaletteSpec(2, per_channel_scale=True)
LAYOUTS = {
    "linear.weight": SCALED,
    "conv.weight": dkm.PaletteSpec(2, group_size=4, axis=1, per_channel_scale=True),
    "vectors.weight": dkm.PaletteSpec(4, cluster_dim=4, per_channel_scale=True),
}
GROUPS = {"linear.weight": (8, 1), "conv.weight": (6, 2, 1, 1), "vectors.weight": (4, 1)}


class Net(nn.Module):
    """A layer for each layout, an LSTM, and a table whose rows are known beforehand."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(32, 8)
        self.conv = nn.Conv2d(8, 6, 3)
        self.vectors = nn.Linear(32, 16)
        self.cell = nn.LSTM(32, 8, batch_first=True)
        self.table = nn.Embedding(6, 32)
        self.register_buffer("places", torch.arange(4))

    def forward(self, x, image):
        x = x + self.table(self.places)
        return self.linear(x), self.vectors(x), self.cell(x)[0], self.conv(image)


@pytest.fixture(scope="module")
def frozen():
    torch.manual_seed(0)
    rules = [dkm.Rule(name, spec) for name, spec in LAYOUTS.items()]
    return dkm.palettize(Net().eval(), dkm.Recipe(SCALED, rules=rules), targets=("coreml",))


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_the_file_computes_what_the_model_does(tmp_path, frozen, precision):
    given = torch.randn(1, 4, 32), torch.randn(1, 8, 9, 9)
    file = dkm.convert(frozen, given, tmp_path / "m.mlpackage", compute_precision=precision)
    stored, palettes = dkm.read_palettes(file), dkm.palettes(frozen)
    assert stored.keys() == palettes.keys()
    for name, palette in stored.items():
        assert palette.scale is None
        assert difference(palettes[name], palette) is None
    assert {name: stored[name].groups for name in LAYOUTS} == GROUPS
    assert operations(file)["constexpr_lut_to_dense"] == len(stored)
    assert dkm.validate([file], reference=frozen, inputs=given, require=("parity",))


def test_another_lut_is_a_difference(frozen):
    palette = dkm.palettes(frozen)["linear.weight"]
    folded = palette.scale_in_luts()
    lut = folded.lut.copy()
    lut[3, 0, 1, 0] = np.nextafter(lut[3, 0, 1, 0], np.float32(9))
    told = difference(palette, dkm.Palette(folded.indices, lut))
    assert told.startswith("LUT entries differ: 1 of 32 float32 values")


def test_scaled_luts_of_8_bits_need_what_has_scales(tmp_path, frozen):
    made = dkm.quantize_luts(frozen)
    with pytest.raises(dkm.DkmError, match="8-bit LUTs of scaled channels need iOS26 or macOS26"):
        dkm.convert(
            made, (torch.randn(1, 4, 32), torch.randn(1, 8, 9, 9)), tmp_path / "m.mlpackage",
            lut_dtype="int8",
        )  # fmt: skip
    assert not list(tmp_path.iterdir())
