"""The Core AI target: palettes read back from the asset, numbers from Apple's runtime."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.palette import difference
from tests.converters.coreai.assets import extra, output, outputs, relative_error
from tests.models import MIXED, TiedNet, images, small_net

extra()


class Side(nn.Module):
    """Layers side by side: ``(n, c, ..)`` to one output a layer, by its name."""

    def __init__(self, layers):
        super().__init__()
        self.layers = nn.ModuleDict(layers)

    def forward(self, x):
        return {name: layer(x) for name, layer in self.layers.items()}


def _recipe(specs):
    return dkm.Recipe(rules=[dkm.Rule(f"layers.{n}.weight", spec) for n, spec in specs.items()])


def test_every_width(tmp_path):
    torch.manual_seed(0)
    specs = {f"w{bits}": dkm.PaletteSpec(bits) for bits in range(1, 9)}
    frozen = dkm.palettize(Side({name: nn.Linear(17, 13) for name in specs}), _recipe(specs))
    x = torch.randn(2, 17)
    artifact = dkm.convert(frozen, x, tmp_path / "m.aimodel")
    stored, palettes = dkm.read_palettes(artifact), dkm.palettes(frozen)
    widths = {3: 4, 5: 6, 7: 8}
    for name, palette in palettes.items():
        assert stored[name].bits == widths.get(palette.bits, palette.bits)
        assert difference(palette, stored[name]) is None
    assert artifact.notes == tuple(
        f"{bits} bits are stored as {wide}, the next width that Core AI has, "
        f"and the weights are the same: layers.w{bits}.weight"
        for bits, wide in widths.items()
    )
    kinds = artifact.ledger.by_kind()
    assert kinds["indices"] == sum(-(-17 * 13 * p.bits // 8) for p in stored.values())
    assert kinds["lut"] == sum(4 * 2**p.bits for p in stored.values())
    expected = frozen(x)
    for name, found in outputs(artifact, x).items():
        assert relative_error(found, expected[name]) < 1e-6


SPECS = {
    "rows": dkm.PaletteSpec(bits=4, group_size=4),
    "columns": dkm.PaletteSpec(bits=2, axis=1, group_size=6),
    "vectors": dkm.PaletteSpec(bits=4, cluster_dim=4),
    "vectors_along_columns": dkm.PaletteSpec(bits=2, cluster_dim=2, axis=1),
    "grouped_vectors": dkm.PaletteSpec(bits=6, cluster_dim=2, axis=1, group_size=4),
    "scaled": dkm.PaletteSpec(bits=4, per_channel_scale=True),
    "scaled_groups": dkm.PaletteSpec(bits=2, group_size=8, per_channel_scale=True),
}


def test_grouped_vector_and_scaled_palettes(tmp_path):
    torch.manual_seed(0)
    layers = {name: nn.Conv2d(12, 16, 3) for name in SPECS}
    nn.init.zeros_(layers["scaled"].weight[3])
    frozen = dkm.palettize(Side(layers), _recipe(SPECS))
    x = torch.randn(1, 12, 5, 5)
    path = tmp_path / "m.aimodel"
    dkm.convert(frozen, x, path)
    assert dkm.read_palettes(path) == dkm.palettes(frozen)
    expected = frozen(x)
    for name, found in outputs(path, x).items():
        assert relative_error(found, expected[name]) < 1e-5


def test_float16_is_of_luts_weights_and_arithmetic(tmp_path):
    frozen = dkm.palettize(small_net(), MIXED)
    kept = dkm.convert(frozen, images(1), tmp_path / "wide.aimodel")
    artifact = dkm.convert(
        frozen, images(1), tmp_path / "half.aimodel", compute_precision="float16"
    )
    assert dkm.read_palettes(artifact)["stem.weight"].lut.dtype == np.float16
    found = output(artifact, images(1))
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

    from dkm_deploy.runtimes.core_ai.runtime import runtime

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


@pytest.mark.parametrize("order", [("plain", "scaled"), ("scaled", "plain")])
def test_a_scale_alone_tells_two_palettes_apart(tmp_path, order):
    """Their indices and LUTs are stored once, under the keys of the first."""
    torch.manual_seed(0)
    specs = {n: dkm.PaletteSpec(4, per_channel_scale=n == "scaled") for n in order}
    frozen = dkm.palettize(Side({n: nn.Linear(12, 8, bias=False) for n in order}), _recipe(specs))
    plain, scaled = (frozen.layers[n].parametrizations.weight for n in ("plain", "scaled"))
    plain.original.copy_(scaled.original)
    plain[0].lut.copy_(scaled[0].lut)
    x = torch.randn(2, 12)
    artifact = dkm.convert(frozen, x, tmp_path / "m.aimodel")
    assert dkm.read_palettes(artifact) == dkm.palettes(frozen)
    assert artifact.ledger.by_kind()["indices"] == 12 * 8 // 2
    expected = frozen(x)
    for name, found in outputs(artifact, x).items():
        assert relative_error(found, expected[name]) < 1e-5


def test_equal_bytes_of_weights_of_two_shapes(tmp_path):
    model = nn.Sequential(nn.Linear(12, 8, bias=False), nn.Linear(8, 12, bias=False))
    for layer in model:
        nn.init.zeros_(layer.weight)
    frozen = dkm.palettize(model, dkm.Recipe.uniform(4))
    path = dkm.convert(frozen, torch.randn(1, 12), tmp_path / "m.aimodel").path
    assert dkm.read_palettes(path) == dkm.palettes(frozen)


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


class Guard(torch.nn.Module):
    def forward(self, x):
        return x / (x.sum(-1, keepdim=True) + 1e-12)


def test_a_guard_that_float16_rounds_to_zero_is_its_smallest_number_and_told(tmp_path):
    x = torch.tensor([[1.0, 3.0], [0.0, 0.0]])
    artifact = dkm.convert(Guard(), x, tmp_path / "m.aimodel", compute_precision="float16")
    (note,) = artifact.notes
    assert note.startswith(
        "1 constants are too small for float16 and are stored as 5.96e-08: 1e-12;"
    )
    assert torch.equal(output(artifact, x), torch.tensor([[0.25, 0.75], [0.0, 0.0]]))
