"""8-bit LUTs: the same values from integers and one step, or a refusal that says what to do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from converters.coreml.lowering.int8_luts import as_int8
from dkm_deploy.formats.ledger import size_on_disk
from dkm_deploy.runtimes.mlprogram import runtime
from tests.converters.coreml.programs import First, operations, spec, without_decodes
from tests.models import Beside

SCALE = "constexpr_blockwise_shift_scale"
SPECS = [
    *(dkm.PaletteSpec(bits=bits) for bits in range(1, 9)),
    dkm.PaletteSpec(bits=4, group_size=4),
    dkm.PaletteSpec(bits=4, group_size=8, axis=1),
    dkm.PaletteSpec(bits=4, cluster_dim=2),
    dkm.PaletteSpec(bits=4, cluster_dim=2, axis=1, group_size=8),
]


def _frozen(specs=SPECS):
    torch.manual_seed(0)
    model = Beside([nn.Linear(32, 16) for _ in specs]).eval()
    rules = [dkm.Rule(f"members.{i}.weight", s) for i, s in enumerate(specs)]
    return dkm.quantize_luts(dkm.palettize(model, dkm.Recipe(rules=rules)))


def _run(path, x):
    return [torch.tensor(y) for y in runtime.load(path).run({"x": x.numpy()}).values()]


@pytest.mark.parametrize(
    ("precision", "target"),
    [
        ("float16", "iOS18"),
        ("float32", "iOS26"),
        pytest.param("float16", "iOS26", marks=pytest.mark.slow),
        pytest.param("float32", "iOS18", marks=pytest.mark.slow),
    ],
)
def test_every_kind_of_palette_is_the_frozen_one(tmp_path, precision, target):
    scaled = [dkm.PaletteSpec(bits=4, per_channel_scale=True)] if target == "iOS26" else []
    frozen, x = _frozen(SPECS + scaled), torch.randn(3, 32)
    options = {"minimum_deployment_target": target, "compute_precision": precision}
    path = dkm.convert(frozen, x, tmp_path / "m.mlpackage", lut_dtype="int8", **options).path
    found = dkm.read_palettes(path)
    for name, palette in dkm.palettes(frozen).items():
        wide = palette.astype(np.dtype(precision)).widen(found[name].bits)
        assert found[name] == wide
    assert operations(path)[SCALE] == len(SPECS) + 2 * len(scaled)
    limits = {"float16": {"rtol": 1e-2, "atol": 1e-2}, "float32": {"rtol": 1e-5, "atol": 1e-5}}
    for made, expected in zip(_run(path, x), frozen(x), strict=True):
        torch.testing.assert_close(made, expected, **limits[precision])


PAIRS = dkm.Recipe(rules=[dkm.Rule(spec=dkm.PaletteSpec(4, group_size=2))])


def test_layers_whose_rows_change_places(tmp_path):
    torch.manual_seed(0)
    model = Beside([First(nn.LSTM(8, 6)), First(nn.GRU(8, 6)), First(nn.RNN(8, 6))]).eval()
    frozen = dkm.quantize_luts(dkm.palettize(model, PAIRS))
    x = torch.randn(3, 2, 8)
    plain = dkm.convert(frozen, x, tmp_path / "plain.mlpackage").path
    path = dkm.convert(frozen, x, tmp_path / "m.mlpackage", lut_dtype="int8").path
    assert dkm.read_palettes(path) == dkm.read_palettes(plain)
    assert without_decodes(operations(path)) == without_decodes(operations(plain))


def test_a_lut_takes_half_the_bytes_and_the_ledger_knows(tmp_path):
    frozen, x = _frozen([dkm.PaletteSpec(bits=4, group_size=1)]), torch.randn(1, 32)
    found = {}
    for kind in ("float", "int8"):
        artifact = dkm.convert(frozen, x, tmp_path / f"{kind}.mlpackage", lut_dtype=kind)
        assert artifact.size_bytes == size_on_disk(artifact.path)
        found[kind] = artifact.ledger.by_kind()["lut"]
    assert found == {"float": 16 * 16 * 2, "int8": 16 * 16 + 2}


def test_what_is_not_on_a_grid_is_refused_with_the_remedy(tmp_path):
    frozen, x = dkm.palettize(nn.Linear(32, 16), dkm.Recipe.uniform(4)), torch.randn(1, 32)
    with pytest.raises(
        dkm.DkmError, match=r"^weight: lut_dtype='int8' needs .* one float16 step; .*quantize_luts"
    ):
        dkm.convert(frozen, x, tmp_path / "m.mlpackage", lut_dtype="int8")
    assert not list(tmp_path.iterdir())


def test_a_step_too_small_for_float16(tmp_path):
    model = nn.Linear(32, 16)
    with torch.no_grad():
        model.weight.mul_(1e-3)
    frozen, x = dkm.quantize_luts(dkm.palettize(model, dkm.Recipe.uniform(4))), torch.randn(1, 32)
    path, wanted = tmp_path / "m.mlpackage", {"lut_dtype": "int8"}
    with pytest.raises(dkm.DkmError, match=r"^weight: .* too small for float16; .*float32"):
        dkm.convert(frozen, x, path, **wanted)
    dkm.convert(frozen, x, path, compute_precision="float32", **wanted)
    assert dkm.read_palettes(path) == dkm.palettes(frozen)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lut_dtype": "int4"}, "lut_dtype is 'int4'; it must be one of float, int8"),
        (
            {"lut_dtype": "int8", "minimum_deployment_target": "iOS17"},
            "lut_dtype is 'int8'; 8-bit LUTs need iOS18 or macOS15, .* is iOS17",
        ),
    ],
)
def test_an_option_that_does_not_fit(tmp_path, options, message):
    with pytest.raises(dkm.DkmError, match=message):
        dkm.convert(_frozen(SPECS[:1]), torch.randn(1, 32), tmp_path / "m.mlpackage", **options)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_integers_times_the_step_are_the_lut(dtype):
    generator = np.random.default_rng(0)
    for scale in (0.011, 0.3, 7.7):
        lut = generator.normal(0, scale, (2, 1, 16, 1)).astype(np.float32)
        model = dkm.quantize_luts(_with_lut(lut))
        (palette,) = dkm.palettes(model).values()
        codes, step = as_int8(palette.lut, dtype)
        made = (codes.astype(np.float32) * np.float32(step)).astype(dtype)
        assert made.tobytes() == palette.lut.astype(dtype).tobytes()
        assert np.abs(codes).max() == 127


def _with_lut(lut):
    """A frozen layer whose LUTs are these."""
    frozen = dkm.palettize(nn.Linear(32, 16), dkm.Recipe.uniform(4, group_size=8))
    with torch.no_grad():
        frozen.parametrizations.weight[0].lut.copy_(torch.from_numpy(lut))
    return frozen


def test_a_negative_zero_has_no_integer():
    lut = np.float32([[-0.0, 1.0]]).reshape(1, 1, 2, 1)
    with pytest.raises(dkm.DkmError, match="quantize_luts"):
        as_int8(lut, "float32")


def test_the_lut_is_of_8_bits_in_the_file(tmp_path):
    frozen = _frozen([dkm.PaletteSpec(bits=8)])
    path = dkm.convert(frozen, torch.randn(1, 32), tmp_path / "m.mlpackage", lut_dtype="int8").path
    (function,) = spec(path).mlProgram.functions.values()
    (block,) = function.block_specializations.values()
    (scaled,) = (o for o in block.operations if o.type == SCALE)
    int8, float16 = 21, 10
    assert scaled.inputs["data"].arguments[0].value.type.tensorType.dataType == int8
    assert scaled.outputs[0].type.tensorType.dataType == float16
