"""Files that other tools have opened and saved again: the palettes are found, or are truly gone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx_ir.passes import common as passes
from onnxscript import optimizer
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.runtimes.onnx_runtime.runtime import runtime

RULES = [
    dkm.Rule("0.weight", dkm.PaletteSpec(bits=3)),
    dkm.Rule("2.weight", dkm.PaletteSpec(bits=4, cluster_dim=2, axis=1)),
    dkm.Rule("4.weight", dkm.PaletteSpec(bits=5, group_size=8)),
    dkm.Rule("6.weight", dkm.PaletteSpec(bits=8)),
    dkm.Rule("*", skip=True),
]
INPUT = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=["float32", "float16"])
def written(request, tmp_path_factory):
    """A file with palettes of four layouts, and the model it came from."""
    torch.manual_seed(0)
    layers = [nn.Linear(16, 24), nn.Linear(24, 32), nn.Linear(32, 40), nn.Linear(40, 300)]
    model = nn.Sequential(*[part for layer in layers for part in (layer, nn.ReLU())]).eval()
    frozen = dkm.palettize(model, dkm.Recipe(rules=RULES))
    path = tmp_path_factory.mktemp("written") / "m.onnx"
    return dkm.convert(frozen, INPUT, path, storage_dtype=request.param).path, frozen


def check(path: Path, written: tuple[Path, nn.Module]) -> None:
    """The same palettes, bytes of them and answers as in the file that was written."""
    source, frozen = written
    assert dkm.read_palettes(path) == dkm.read_palettes(source)
    before, after = dkm.size_breakdown(source).by_kind(), dkm.size_breakdown(path).by_kind()
    assert (after["indices"], after["lut"]) == (before["indices"], before["lut"])
    answers = [
        runtime.load(file).run({"input": INPUT.numpy()})["output"] for file in (source, path)
    ]
    assert np.abs(answers[0] - answers[1]).max() < 1e-6
    assert np.abs(answers[1] - frozen(INPUT).detach().numpy()).max() < 1e-3


ONNX_EDITS = {
    "saved again": lambda model: model,
    "with shapes inferred": lambda model: onnx.shape_inference.infer_shapes(model, data_prop=True),
    "at opset 21": lambda model: onnx.version_converter.convert_version(model, 21),
    "at opset 23": lambda model: onnx.version_converter.convert_version(model, 23),
}


@pytest.mark.parametrize("edit", ONNX_EDITS)
def test_the_onnx_package(written, tmp_path, edit):
    onnx.save(ONNX_EDITS[edit](onnx.load(written[0])), tmp_path / "m.onnx")
    check(tmp_path / "m.onnx", written)


@pytest.mark.parametrize("one_file", [True, False])
def test_the_onnx_package_with_data_files(written, tmp_path, one_file):
    onnx.save(
        onnx.load(written[0]),
        tmp_path / "m.onnx",
        save_as_external_data=True,
        all_tensors_to_one_file=one_file,
        size_threshold=80,  # Python's size of a shape of four dimensions is 65 bytes
    )
    check(tmp_path / "m.onnx", written)


IR_PASSES = {
    "saved again": passes.ClearMetadataAndDocStringPass(),
    "without common parts": passes.CommonSubexpressionEliminationPass(),
    "without equal tensors": passes.DeduplicateInitializersPass(),
    "in another order": passes.TopologicalSortPass(),
    "without unused nodes": passes.RemoveUnusedNodesPass(),
    "with new names where needed": passes.NameFixPass(),
    "with inlined functions": passes.InlinePass(),
}


@pytest.mark.parametrize("edit", IR_PASSES)
def test_passes_of_onnx_ir(written, tmp_path, edit):
    model = ir.load(written[0])
    IR_PASSES[edit](model)
    ir.save(model, tmp_path / "m.onnx")
    check(tmp_path / "m.onnx", written)


def test_onnx_ir_with_a_data_file(written, tmp_path):
    ir.save(ir.load(written[0]), tmp_path / "m.onnx", external_data="m.data")
    check(tmp_path / "m.onnx", written)


def test_constant_folding_leaves_dense_weights_and_no_palette(written, tmp_path):
    """What an optimiser has decoded for good is dense, and is counted so."""
    model = ir.load(written[0])
    optimizer.optimize_ir(model, input_size_limit=10**6, output_size_limit=10**6)
    ir.save(model, tmp_path / "m.onnx")
    assert dkm.read_palettes(tmp_path / "m.onnx") == {}
    kinds = dkm.size_breakdown(tmp_path / "m.onnx").by_kind()
    weights = 16 * 24 + 24 * 32 + 32 * 40 + 40 * 300
    assert (kinds["indices"], kinds["lut"]) == (0, 0)
    assert kinds["dense"] >= 4 * weights


def test_partial_folding_leaves_whole_palettes_or_none(written, tmp_path):
    """Folding with the optimiser's own limits decodes the small weights only."""
    model = ir.load(written[0])
    optimizer.optimize_ir(model, input_size_limit=16, output_size_limit=1000)
    ir.save(model, tmp_path / "m.onnx")
    stored, before = dkm.read_palettes(tmp_path / "m.onnx"), dkm.read_palettes(written[0])
    assert "6.weight" in stored
    assert all(palette == before[name] for name, palette in stored.items())


def test_constants_that_became_inputs_are_no_palettes(written, tmp_path):
    """A caller may replace them."""
    model = ir.load(written[0])
    passes.AddInitializersToInputsPass()(model)
    ir.save(model, tmp_path / "m.onnx")
    assert dkm.read_palettes(tmp_path / "m.onnx") == {}
