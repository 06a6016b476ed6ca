"""The Core AI target: palettes read back from the asset, numbers from Apple's runtime."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.palette import difference
from tests.converters.coreai_assets import extra, output, relative_error
from tests.models import MIXED, TiedNet, images, small_net

extra()


@pytest.mark.parametrize("bits", range(1, 9))
def test_every_width(tmp_path, bits):
    torch.manual_seed(bits)
    frozen = dkm.palettize(nn.Linear(17, 13), dkm.Recipe.uniform(bits))
    x = torch.randn(2, 17)
    artifact = dkm.convert(frozen, x, tmp_path / "m.aimodel")
    (stored,) = dkm.read_palettes(artifact).values()
    wider = {3: 4, 5: 6, 7: 8}
    assert stored.bits == wider.get(bits, bits)
    (palette,) = dkm.palettes(frozen).values()
    assert difference(palette, stored) is None
    told = (
        f"{bits} bits are stored as {stored.bits}, the next width that Core AI has, "
        "and the weights are the same: weight"
    )
    assert artifact.notes == ((told,) if bits in wider else ())
    assert artifact.ledger.by_kind()["indices"] == -(-17 * 13 * stored.bits // 8)
    assert artifact.ledger.by_kind()["lut"] == 4 * 2**stored.bits
    assert relative_error(output(artifact, x), frozen(x)) < 1e-6


@pytest.mark.parametrize(
    "spec",
    [
        dkm.PaletteSpec(bits=4, group_size=4),
        dkm.PaletteSpec(bits=2, axis=1, group_size=6),
        dkm.PaletteSpec(bits=4, cluster_dim=4),
        dkm.PaletteSpec(bits=2, cluster_dim=2, axis=1),
        dkm.PaletteSpec(bits=6, cluster_dim=2, axis=1, group_size=4),
        dkm.PaletteSpec(bits=4, per_channel_scale=True),
        dkm.PaletteSpec(bits=2, group_size=8, per_channel_scale=True),
    ],
)
def test_grouped_vector_and_scaled_palettes(tmp_path, spec):
    torch.manual_seed(0)
    frozen = dkm.palettize(nn.Conv2d(12, 16, 3), dkm.Recipe(spec))
    x = torch.randn(1, 12, 5, 5)
    path = tmp_path / "m.aimodel"
    dkm.convert(frozen, x, path)
    assert dkm.read_palettes(path) == dkm.palettes(frozen)
    assert relative_error(output(path, x), frozen(x)) < 1e-5


def test_float16_is_of_luts_weights_and_arithmetic(tmp_path):
    frozen = dkm.palettize(small_net(), MIXED)
    kept = dkm.convert(frozen, images(1), tmp_path / "wide.aimodel")
    artifact = dkm.convert(
        frozen, images(1), tmp_path / "half.aimodel", compute_precision="float16"
    )
    assert dkm.read_palettes(artifact)["stem.weight"].lut.dtype == np.float16
    found = output(artifact, x=images(1))
    assert found.dtype == torch.float32  # what an app gets
    assert 1e-6 < relative_error(found, frozen(images(1))) < 1e-2
    assert artifact.ledger.by_kind()["dense"] < kept.ledger.by_kind()["dense"]


def test_scaled_palettes_in_float16(tmp_path):
    spec = dkm.PaletteSpec(bits=4, per_channel_scale=True)
    frozen = dkm.palettize(nn.Linear(16, 8), dkm.Recipe(spec))
    x = torch.randn(3, 16)
    path = tmp_path / "m.aimodel"
    dkm.convert(frozen, x, path, compute_precision="float16")
    (stored,), (palette,) = dkm.read_palettes(path).values(), dkm.palettes(frozen).values()
    assert difference(palette, stored) is None
    assert relative_error(output(path, x), frozen(x)) < 1e-2


def test_an_attention_mask_beyond_float16(tmp_path):
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.score = nn.Linear(8, 8)
            self.register_buffer("floor", torch.tensor(torch.finfo(torch.float32).min))

        def forward(self, x):
            scores = self.score(x)
            hidden = torch.arange(8, dtype=torch.float32) > 5
            scores = torch.where(hidden, self.floor, scores).masked_fill(x > 2, -1e30)
            return scores.softmax(-1)

    torch.manual_seed(0)
    frozen = dkm.palettize(Masked(), dkm.Recipe.uniform(2))
    x = torch.randn(4, 8)
    path = tmp_path / "m.aimodel"
    dkm.convert(frozen, x, path, compute_precision="float16")
    torch.testing.assert_close(output(path, x), frozen(x), rtol=1e-2, atol=1e-3)


def test_a_lut_beyond_float16_names_the_weight(tmp_path):
    model = nn.Linear(4, 4)
    with torch.no_grad():
        model.weight.mul_(1e6)
    frozen = dkm.palettize(model, dkm.Recipe.uniform(2))
    with pytest.raises(dkm.DkmError, match=r"^weight: .* is beyond float16.*compute_precision"):
        dkm.convert(frozen, torch.randn(1, 4), tmp_path / "m.aimodel", compute_precision="float16")


def test_an_unknown_precision(tmp_path):
    frozen = dkm.palettize(nn.Linear(4, 4), dkm.Recipe.uniform(2))
    with pytest.raises(dkm.DkmError, match="compute_precision is 'int8'; .* float32, float16"):
        dkm.convert(frozen, torch.randn(1, 4), tmp_path / "m.aimodel", compute_precision="int8")


def test_names_are_the_users(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a_b, self.a = nn.Linear(4, 4), nn.Module()
            self.a.b = nn.Linear(4, 4)

        def forward(self, image):
            return {"scores": self.a_b(image), "mask": self.a.b(image)}

    from dkm_deploy.runtimes.core_ai import runtime

    frozen = dkm.palettize(Net(), dkm.Recipe.uniform(2))
    path = dkm.convert(frozen, torch.randn(1, 4), tmp_path / "m.aimodel").path
    session = runtime.load(path)
    assert session.input_shapes == {"image": (1, 4)}
    assert set(session.run({"image": np.zeros((1, 4), np.float32)})) == {"scores", "mask"}
    assert set(dkm.read_palettes(path)) == {"a_b.weight", "a.b.weight"}


def test_equal_weights_keep_their_names_and_tied_ones_are_stored_once(tmp_path):
    torch.manual_seed(0)
    twins = nn.Sequential(nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 12))
    twins[2].load_state_dict(twins[0].state_dict())
    frozen = dkm.palettize(twins, dkm.Recipe.uniform(4))
    path = tmp_path / "twins.aimodel"
    dkm.convert(frozen, torch.randn(1, 12), path)
    assert dkm.read_palettes(path) == dkm.palettes(frozen)

    tied = dkm.palettize(TiedNet(), dkm.Recipe.uniform(4))
    ids = torch.randint(0, 20, (2, 3))
    artifact = dkm.convert(tied, ids, tmp_path / "tied.aimodel")
    assert set(dkm.read_palettes(artifact)) == {"embed.weight", "middle.weight"}
    assert artifact.ledger.by_kind()["indices"] == (20 * 12 + 12 * 12) // 2
    assert relative_error(output(artifact, ids), tied(ids)) < 1e-5


def test_a_free_batch(tmp_path):
    frozen = dkm.palettize(small_net(), MIXED)
    for precision in ("float32", "float16"):
        path = tmp_path / f"{precision}.aimodel"
        free = {"x": {0: torch.export.Dim("batch", min=1, max=32)}}
        dkm.convert(frozen, images(2), path, dynamic_shapes=free, compute_precision=precision)
        for count in (1, 7):
            expected = frozen(images(count))
            limit = 1e-5 if precision == "float32" else 1e-2
            assert relative_error(output(path, images(count)), expected) < limit


def test_the_same_model_gives_the_same_bytes(tmp_path):
    frozen = dkm.palettize(small_net(), MIXED)
    first, second = (dkm.convert(frozen, images(1), tmp_path / f"{n}/m.aimodel").path for n in "ab")
    files = sorted(file.name for file in first.iterdir())
    assert files == ["main.hash", "main.mlirb", "metadata.json"]
    assert all((first / f).read_bytes() == (second / f).read_bytes() for f in files)


def test_a_model_without_palettes(tmp_path):
    artifact = dkm.convert(small_net(), images(1), tmp_path / "m.aimodel")
    assert dkm.read_palettes(artifact) == {}
    assert relative_error(output(artifact, images(1)), small_net()(images(1))) < 1e-5


def test_apples_packages_are_silent(tmp_path, capfd):
    frozen = dkm.palettize(small_net(), MIXED)
    path = dkm.convert(frozen, images(1), tmp_path / "m.aimodel").path
    dkm.validate([path], reference=frozen, inputs=images(2))
    assert "".join(capfd.readouterr()) == ""
