"""The Core ML target: operations counted in the produced program, then numbers compared."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.formats.mlpackage.proto import model_class
from dkm_deploy.runtimes.mlprogram import runtime
from tests.converters.coreml.programs import First
from tests.models import MIXED, images, small_net

DECODE = "constexpr_lut_to_dense"


def _spec(path):
    spec = model_class()()
    spec.ParseFromString((Path(path) / "Data/com.apple.CoreML/model.mlmodel").read_bytes())
    return spec


def _operations(path):
    (function,) = _spec(path).mlProgram.functions.values()
    (block,) = function.block_specializations.values()
    return Counter(op.type for op in block.operations if op.type != "const")


def _output(path, **inputs):
    arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
    return torch.tensor(runtime.load(Path(path)).run(arrays)["output"])


def test_convolutions_and_linear_layers_stay_what_they_are(tmp_path):
    frozen = dkm.palettize(small_net(), MIXED)
    path = dkm.convert(frozen, images(1), tmp_path / "m.mlpackage").path
    operations = _operations(path)
    assert operations[DECODE] == 2
    assert operations["conv"] == 2
    assert operations["linear"] == 1
    assert operations["matmul"] == 0


@pytest.mark.parametrize("shape", [(4, 6), (2, 4, 6), (2, 3, 4, 6)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_of_any_rank_is_one_linear(tmp_path, shape, bias):
    frozen = dkm.palettize(nn.Linear(6, 5, bias=bias), dkm.Recipe.uniform(4))
    x = torch.randn(shape)
    options = {"compute_precision": "float32"}
    path = dkm.convert(frozen, x, tmp_path / "m.mlpackage", **options).path
    assert _operations(path) == {DECODE: 1, "linear": 1}
    torch.testing.assert_close(_output(path, input=x), frozen(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "spec",
    [
        dkm.PaletteSpec(bits=3, group_size=4),
        dkm.PaletteSpec(bits=2, axis=1, group_size=6),
        dkm.PaletteSpec(bits=4, cluster_dim=4),
        dkm.PaletteSpec(bits=2, cluster_dim=2, axis=1),
        dkm.PaletteSpec(bits=6, cluster_dim=2, axis=1, group_size=4),
    ],
)
def test_grouped_and_vector_palettes_from_ios_18(tmp_path, spec):
    torch.manual_seed(0)
    frozen = dkm.palettize(nn.Conv2d(12, 16, 3), dkm.Recipe(spec))
    x = torch.randn(1, 12, 5, 5)
    path = tmp_path / "m.mlpackage"
    dkm.convert(frozen, x, path, compute_precision="float32")
    assert dkm.read_palettes(path) == dkm.palettes(frozen)
    torch.testing.assert_close(_output(path, input=x), frozen(x), rtol=1e-5, atol=1e-5)
    with pytest.raises(
        dkm.DkmError, match=r"weight: .*(grouped|vector) palettes need iOS18 or macOS15"
    ):
        dkm.convert(frozen, x, path, force=True, minimum_deployment_target="iOS17")
    assert dkm.read_palettes(path) == dkm.palettes(frozen)


def test_precision_is_of_luts_weights_and_arithmetic(tmp_path):
    frozen = dkm.palettize(small_net(), MIXED)
    dtypes = {}
    for precision in ("float16", "float32"):
        path = tmp_path / f"{precision}.mlpackage"
        dkm.convert(frozen, images(1), path, compute_precision=precision)
        dtypes[precision] = dkm.read_palettes(path)["stem.weight"].lut.dtype
        assert _output(path, x=images(1)).dtype == torch.float32  # what an app gets
    assert dtypes == {"float16": np.float16, "float32": np.float32}


def test_names_are_the_users(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a_b, self.a = nn.Linear(4, 4), nn.Module()
            self.a.b = nn.Linear(4, 4)

        def forward(self, image):
            return {"scores": self.a_b(image), "mask": self.a.b(image)}

    frozen = dkm.palettize(Net(), dkm.Recipe.uniform(2))
    path = dkm.convert(frozen, torch.randn(1, 4), tmp_path / "m.mlpackage").path
    description = _spec(path).description
    assert [feature.name for feature in description.input] == ["image"]
    assert [feature.name for feature in description.output] == ["scores", "mask"]
    assert set(dkm.read_palettes(path)) == {"a_b.weight", "a.b.weight"}


def test_a_weight_that_is_an_output_too(tmp_path):
    """coremltools then gives the decode the output's name."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 4)

        def forward(self, x):
            return {"scores": self.head(x), "weight": self.head.weight}

    frozen, path = dkm.palettize(Net(), dkm.Recipe.uniform(2)), tmp_path / "m.mlpackage"
    dkm.convert(frozen, torch.randn(1, 4), path, compute_precision="float32")
    assert dkm.read_palettes(path) == dkm.palettes(frozen)
    found = runtime.load(path).run({"x": np.zeros((1, 4), np.float32)})
    np.testing.assert_array_equal(found["weight"], frozen.head.weight.numpy())


def test_a_free_batch_needs_a_bound_and_then_runs(tmp_path):
    frozen = dkm.palettize(small_net(), MIXED)
    path = tmp_path / "m.mlpackage"
    free = {"x": {0: torch.export.Dim("batch")}}
    with pytest.raises(dkm.DkmError, match="input 'x': dimension .* has no upper bound"):
        dkm.convert(frozen, images(2), path, dynamic_shapes=free)
    assert not path.exists()
    bounded = {"x": {0: torch.export.Dim("batch", max=32)}}
    dkm.convert(frozen, images(2), path, dynamic_shapes=bounded, compute_precision="float32")
    for count in (1, 7):
        expected = frozen(images(count))
        torch.testing.assert_close(_output(path, x=images(count)), expected, rtol=1e-5, atol=1e-5)


def test_the_package_holds_three_readable_files(tmp_path):
    path = dkm.convert(dkm.palettize(small_net(), MIXED), images(1), tmp_path / "m.mlpackage").path
    files = sorted(str(f.relative_to(path)) for f in path.rglob("*") if f.is_file())
    assert files == [
        "Data/com.apple.CoreML/model.mlmodel",
        "Data/com.apple.CoreML/weights/weight.bin",
        "Manifest.json",
    ]
    assert all(f.stat().st_mode & 0o444 == 0o444 for f in path.rglob("*"))
    stored = json.loads(_spec(path).description.metadata.userDefined["dkm_deploy.weights"])
    assert sorted(stored.values()) == ["head.weight", "stem.weight"]


def test_coremltools_is_silent_and_left_as_it_was(tmp_path, capfd):
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY

    before = dict(_TORCH_OPS_REGISTRY.name_to_func_mapping)
    dkm.convert(dkm.palettize(small_net(), MIXED), images(1), tmp_path / "m.mlpackage")
    assert _TORCH_OPS_REGISTRY.name_to_func_mapping == before
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minimum_deployment_target": "iOS15"}, "minimum_deployment_target is 'iOS15'; .* iOS16"),
        ({"compute_precision": "int8"}, "compute_precision is 'int8'; .* float16, float32"),
    ],
)
def test_an_option_out_of_range(tmp_path, options, message):
    frozen = dkm.palettize(small_net(), MIXED)
    with pytest.raises(dkm.DkmError, match=message):
        dkm.convert(frozen, images(1), tmp_path / "m.mlpackage", **options)


def test_a_lut_beyond_float16_names_the_weight(tmp_path):
    model = nn.Linear(4, 4)
    with torch.no_grad():
        model.weight.mul_(1e6)
    frozen = dkm.palettize(model, dkm.Recipe.uniform(2))
    x, path = torch.randn(1, 4), tmp_path / "m.mlpackage"
    with pytest.raises(dkm.DkmError, match=r"^weight: .* is beyond float16.*compute_precision"):
        dkm.convert(frozen, x, path)
    dkm.convert(frozen, x, path, compute_precision="float32")
    torch.testing.assert_close(_output(path, input=x), frozen(x), rtol=1e-5, atol=1)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv1d(4, 5, 3, padding=2, padding_mode="circular"), (2, 4, 6)),
        (nn.Conv2d(4, 5, (2, 3), padding=(1, 2), padding_mode="circular"), (2, 4, 5, 6)),
        (nn.Conv2d(4, 5, 2, padding="same", padding_mode="circular"), (2, 4, 5, 6)),
        (nn.Conv3d(2, 3, 3, padding=1, padding_mode="circular"), (1, 2, 3, 4, 5)),
    ],
)
def test_circular_padding(tmp_path, layer, shape):
    frozen, x = dkm.palettize(layer, dkm.Recipe.uniform(4)), torch.randn(shape)
    path = tmp_path / "m.mlpackage"
    dkm.convert(frozen, x, path, compute_precision="float32")
    torch.testing.assert_close(_output(path, input=x), frozen(x), rtol=1e-5, atol=1e-5)


def test_circular_padding_of_any_length(tmp_path):
    layer = nn.Conv1d(4, 5, 3, padding=1, padding_mode="circular")
    frozen, x = dkm.palettize(layer, dkm.Recipe.uniform(4)), torch.randn(2, 4, 6)
    free = {"input": {2: torch.export.Dim("length", min=4, max=32)}}
    path = tmp_path / "m.mlpackage"
    dkm.convert(frozen, x, path, compute_precision="float32", dynamic_shapes=free)
    for length in (5, 9):
        x = torch.randn(2, 4, length)
        torch.testing.assert_close(_output(path, input=x), frozen(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("target", ["iOS16", "iOS18"])
def test_entries_that_float16_rounds_to_zero_are_zero_in_the_file(tmp_path, target):
    """coremltools makes the smallest number of those, which would be another LUT."""
    frozen = dkm.palettize(nn.Linear(16, 16), dkm.Recipe.uniform(4))
    _put(frozen.parametrizations.weight[0].lut, 1e-9, -1e-9)
    path, options = tmp_path / "m.mlpackage", {"minimum_deployment_target": target}
    dkm.convert(frozen, torch.randn(1, 16), path, **options)
    (stored,) = dkm.read_palettes(path).values()
    assert stored.lut[0, 0, :2].tolist() == [[0], [0]]


@pytest.mark.parametrize("target", ["iOS16", "iOS17"])
@pytest.mark.parametrize("cell", [nn.LSTM, nn.RNN, nn.GRU])
def test_recurrent_layers_keep_such_entries_where_they_are_float32(tmp_path, cell, target):
    frozen = dkm.palettize(First(cell(8, 4)).eval(), dkm.Recipe.uniform(2))
    _put(frozen.module.parametrizations.weight_hh_l0[0].lut, 1e-9)
    path, options = tmp_path / "m.mlpackage", {"minimum_deployment_target": target}
    dkm.convert(frozen, torch.randn(3, 1, 8), path, **options)
    lut = dkm.read_palettes(path)["module.weight_hh_l0"].lut
    whole = target == "iOS16" and cell is not nn.GRU
    assert lut[0, 0, 0, 0] == (np.float32(1e-9) if whole else 0)


def _put(lut, *values):
    with torch.no_grad():
        lut[0, 0, : len(values), 0] = torch.tensor(values)


def test_a_scale_that_float16_rounds_to_zero(tmp_path):
    spec = dkm.PaletteSpec(bits=4, per_channel_scale=True)
    frozen = dkm.palettize(nn.Linear(16, 16), dkm.Recipe(spec))
    with torch.no_grad():
        frozen.parametrizations.weight[0].scale[3] = 1e-9
    path, options = tmp_path / "m.mlpackage", {"minimum_deployment_target": "iOS26"}
    dkm.convert(frozen, torch.randn(1, 16), path, **options)
    (stored,) = dkm.read_palettes(path).values()
    assert stored.scale[3].item() == 0
