"""Palettes with a scale for each channel in ONNX: written, run and read back bit for bit."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.conversion.export import export
from dkm_deploy.palette import Palette
from dkm_deploy.runtimes.onnx_runtime.runtime import quiet_options, runtime
from tests.converters.onnx.decoding.test_encode import (
    LAYOUTS,
    LEVELS,
    SHAPES,
    check,
    palette_of,
    save,
)
from tests.converters.onnx.models import linear, values
from tests.models import TiedNet, images, small_net

SCALED = dkm.Recipe.uniform(3, per_channel_scale=True)


def scaled(palette: Palette, smallest: float = 0.01) -> Palette:
    channels, *rest = palette.shape
    scale = np.geomspace(smallest, 9, channels).astype(palette.lut.dtype)
    scale[1] = 0  # a channel of zeros
    shape = (channels, *[1] * len(rest))
    return Palette(palette.indices, palette.lut, palette.axis, scale=scale.reshape(shape))


@pytest.mark.parametrize("bits", [1, 3, 8])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", SHAPES)
def test_every_layout_is_exact(tmp_path, bits, layout, kind):
    cluster_dim, axis, count = LAYOUTS[layout]
    groups = tuple(count if dim == axis else 1 for dim in range(len(SHAPES[kind])))
    palette = scaled(palette_of(SHAPES[kind], bits, cluster_dim, axis, groups))
    model = save(tmp_path / "w.onnx", {"fc.weight": palette})
    assert model.graph.node[-1].op_type == "Mul"
    check(tmp_path / "w.onnx", {"fc.weight": palette})
    assert dkm.size_breakdown(tmp_path / "w.onnx").by_kind()["lut"] == palette.lut_bytes


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_dtypes_are_exact(tmp_path, dtype):
    palettes = {"w": scaled(palette_of((6, 10), 3, dtype=dtype))}
    save(tmp_path / "w.onnx", palettes)
    check(tmp_path / "w.onnx", palettes)


def test_products_below_the_normal_numbers_are_exact(tmp_path):
    palette = scaled(palette_of((6, 10), 3), smallest=1e-40)
    save(tmp_path / "w.onnx", {"w": palette, "plain": palette_of((6, 10), 3)})
    check(tmp_path / "w.onnx", {"w": palette, "plain": palette_of((6, 10), 3)})


def weights_run(path):
    """Names of the float initializers of the graph that ONNX Runtime runs, and its operators."""
    options = quiet_options()
    options.optimized_model_filepath = str(path.with_suffix(".optimised.onnx"))
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    model = onnx.load(options.optimized_model_filepath)
    sizes = [int(np.prod(t.dims)) for t in model.graph.initializer if t.data_type == 1]
    return sizes, [node.op_type for node in model.graph.node]


def run_at(path, level, inputs):
    options = quiet_options()
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[0]


MODELS = {
    "cnn": (small_net, images(2)),
    "tied": (TiedNet, torch.arange(20).reshape(2, 10)),
    "lstm": (lambda: nn.LSTM(6, 8, bidirectional=True), torch.randn(5, 1, 6)),
}


@pytest.mark.parametrize(
    ("name", "decode"), [("cnn", "load"), ("tied", "packed"), ("lstm", "load")]
)
def test_models_round_trip(tmp_path, name, decode):
    make, inputs = MODELS[name]
    torch.manual_seed(0)
    frozen, path = dkm.palettize(make().eval(), SCALED), tmp_path / "m.onnx"
    dkm.convert(frozen, inputs, path, decode=decode)
    palettes = dkm.palettes(frozen)
    assert dkm.read_palettes(path) == palettes
    made = [node.output[0] for node in onnx.load(path).graph.node if node.op_type == "Mul"]
    assert sorted(set(made) & palettes.keys()) == sorted(palettes)  # each scaled once
    with torch.no_grad():
        expected = frozen(inputs)
    expected = expected[0] if isinstance(expected, tuple) else expected
    for level in LEVELS:
        np.testing.assert_allclose(run_at(path, level, inputs), expected.numpy(), atol=1e-5)


def test_onnx_runtime_multiplies_once_when_it_loads_the_file(tmp_path):
    frozen = dkm.palettize(nn.Linear(64, 48), SCALED)
    dkm.convert(frozen, torch.randn(2, 64), tmp_path / "m.onnx")
    sizes, operators = weights_run(tmp_path / "m.onnx")
    assert 64 * 48 in sizes
    assert operators == ["Gemm"]


@pytest.mark.parametrize(
    "options",
    [
        {"runtime": "1.24"},
        {"storage_dtype": "float16"},
        {"decode": "int8"},
        {"external_data": True},
    ],
    ids=str,
)
def test_other_forms_of_a_file_hold_the_scale(tmp_path, options):
    """Of 4 bits, for which ONNX has a type, and of 6, whose LUT would be smaller in float16."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(64, 300), nn.Linear(300, 16)), torch.randn(2, 64)
    small = dkm.PaletteSpec(6, per_channel_scale=True)
    recipe = dkm.Recipe(dkm.PaletteSpec(4, per_channel_scale=True), [dkm.Rule("1.*", small)])
    frozen, path = dkm.palettize(model, recipe), tmp_path / "m.onnx"
    artifact = dkm.convert(frozen, x, path, **options)
    assert dkm.read_palettes(path) == dkm.palettes(frozen)
    for level in LEVELS:
        difference = np.abs(run_at(path, level, x) - frozen(x).detach().numpy()).max()
        assert difference < (1e-3 if "storage_dtype" in options else 1e-5)  # biases are rounded
    assert artifact.ledger.by_kind()["lut"] == 4 * (16 + 300 + 64 + 16)
    notes = ("1.weight.lut stays float32: it has a per-channel scale",)
    assert artifact.notes == (notes if "storage_dtype" in options else ())


def test_a_file_palettized_without_its_model_holds_the_scale(tmp_path):
    proto, x = linear(), values(3, 64)
    onnx.save(proto, tmp_path / "dense.onnx")
    dkm.palettize_file(tmp_path / "dense.onnx", tmp_path / "m.onnx", SCALED)
    palettes = dkm.read_palettes(tmp_path / "m.onnx")
    dense = numpy_helper.to_array(proto.graph.initializer[0])
    assert np.array_equal(palettes["w"].scale, np.abs(dense).max(1, keepdims=True))
    found = runtime.load(tmp_path / "m.onnx").run({"x": x})["y"]
    np.testing.assert_allclose(found, x @ palettes["w"].decode(), atol=1e-4)


def test_a_file_in_onnx_runtimes_own_format_holds_the_scale(tmp_path):
    frozen, ids = dkm.palettize(TiedNet().eval(), SCALED), torch.arange(20).reshape(2, 10)
    dkm.convert(frozen, ids, tmp_path / "m.ort")
    assert dkm.read_palettes(tmp_path / "m.ort") == dkm.palettes(frozen)
    lut_bytes = sum(palette.lut_bytes for palette in dkm.palettes(frozen).values())
    assert dkm.size_breakdown(tmp_path / "m.ort").by_kind()["lut"] == lut_bytes


class Used(nn.Module):
    """Multiplies its weight itself, and gives it."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8, bias=False)

    def forward(self, x):
        return nn.functional.linear(x, self.fc.weight * 2.0), self.fc.weight


def test_a_models_own_product_of_a_weight_is_kept(tmp_path):
    frozen, x = dkm.palettize(Used(), SCALED), torch.randn(2, 8)
    dkm.convert(frozen, x, tmp_path / "m.onnx")
    found = runtime.load(tmp_path / "m.onnx").run({"x": x.numpy()})
    product, weight = found.values()
    np.testing.assert_allclose(product, frozen(x)[0].numpy(), atol=1e-6)
    assert np.array_equal(weight, frozen.fc.weight.numpy())


def test_a_scale_of_one_is_no_matter_of_optimisers(tmp_path):
    model = nn.Linear(16, 1)
    with torch.no_grad():
        model.weight.copy_(torch.linspace(-1, 1, 16)[None])
    dkm.convert(dkm.palettize(model, SCALED), torch.randn(2, 16), tmp_path / "m.onnx")
    assert dkm.read_palettes(tmp_path / "m.onnx")["weight"].scale.item() == 1


@pytest.mark.parametrize("rank", [1, 3])
def test_an_embedding_gathers_its_scales_with_its_rows(tmp_path, rank):
    torch.manual_seed(0)
    ids = torch.randint(-50, 50, (2, 3, 4)[:rank])
    frozen = dkm.palettize(nn.Embedding(50, 24), SCALED)
    path, expected = tmp_path / "m.onnx", frozen(ids % 50).numpy()
    dkm.convert(frozen, ids % 50, path)
    assert dkm.read_palettes(path) == dkm.palettes(frozen)
    for level in LEVELS:
        assert run_at(path, level, ids).tobytes() == expected.tobytes()  # from the end, too
    assert 50 * 24 not in weights_run(path)[0]  # not decoded as a whole
    assert dkm.size_breakdown(path).by_kind()["lut"] == 4 * (8 + 50)


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])
def test_a_weight_read_often_is_multiplied_once(cell):
    frozen = dkm.palettize(cell(6, 8, bidirectional=True), SCALED)
    program = export(frozen, torch.randn(5, 1, 6)).program
    decodes = [n for n in program.graph.nodes if n.target is torch.ops.dkm.lut_to_dense.default]
    assert len(decodes) == 4
    assert [user.target for decode in decodes for user in decode.users] == [
        torch.ops.aten.mul.Tensor
    ] * 4


def embedding(path):
    frozen = dkm.palettize(nn.Embedding(50, 24), SCALED)
    dkm.convert(frozen, torch.arange(4), path)
    return dkm.palettes(frozen)["weight"]


def weight(path):
    palette = scaled(palette_of((50, 24), 3))
    save(path, {"weight": palette})
    return palette


@pytest.mark.parametrize("make", [embedding, weight])
def test_one_changed_scale_is_read(tmp_path, make):
    palette = make(tmp_path / "w.onnx")
    model = onnx.load(tmp_path / "w.onnx")
    tensor = next(t for t in model.graph.initializer if t.name == "weight.scale")
    values = numpy_helper.to_array(tensor).copy()
    values[3] = np.nextafter(values[3], np.float32(9))
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, tmp_path / "w.onnx")
    read = dkm.read_palettes(tmp_path / "w.onnx")["weight"]
    assert np.flatnonzero(read.scale != palette.scale).tolist() == [3]
    assert np.array_equal(read.indices, palette.indices)


def test_rows_that_are_not_multiplied_have_no_scale(tmp_path):
    embedding(tmp_path / "w.onnx")
    model = onnx.load(tmp_path / "w.onnx")
    model.graph.node[-1].op_type = "Add"
    onnx.save(model, tmp_path / "w.onnx")
    assert dkm.read_palettes(tmp_path / "w.onnx")["weight"].scale is None


@pytest.mark.parametrize("edit", ["another operator", "twice", "shape"])
def test_a_scale_that_is_applied_in_another_way_does_not_pass(tmp_path, edit):
    path = tmp_path / "w.onnx"
    weight(path)
    model = onnx.load(path)
    last = model.graph.node[-1]
    if edit == "another operator":
        last.op_type = "Add"
    elif edit == "twice":
        last.output[0] = "once"
        model.graph.node.append(helper.make_node("Mul", ["once", "weight.scale"], ["weight"]))
    else:
        next(t for t in model.graph.initializer if t.name == "weight.scale").dims[:] = [1, 50]
    onnx.save(model, path)
    with pytest.raises(dkm.DkmError, match=r"w\.onnx: weight: "):
        dkm.read_palettes(path)
