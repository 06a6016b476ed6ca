"""Whole models through the ``.ort`` file and ONNX Runtime, against PyTorch."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from converters.onnx.options import Options
from converters.onnx.writing.write import write as write_onnx
from converters.ort import target
from converters.ort.load import load
from dkm_deploy.conversion.export import export
from dkm_deploy.errors import DkmError
from dkm_deploy.palette_spec import PaletteSpec
from dkm_deploy.post_training.palettize import palettize
from dkm_deploy.recipe import Recipe
from dkm_deploy.runtimes.onnx_runtime.runtime import runtime
from tests.converters.ort.files import (
    every_layout,
    graph_of,
    in_another_process,
    operators,
    small_file,
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The frozen model, the program, and the file that holds every layout."""
    frozen, program = every_layout()
    path = tmp_path_factory.mktemp("ort") / "m.ort"
    target.write(program, path)
    return frozen, program, path


def test_every_layout_comes_back_bit_for_bit(written):
    _, program, path = written
    assert {p.bits for p in program.palettes.values()} == set(range(1, 9))
    assert len(program.palettes) == 12
    assert target.read_palettes(path) == program.palettes


def test_outputs_are_those_of_pytorch(written):
    frozen, _, path = written
    ids = torch.randint(0, 20, (2, 6), generator=torch.Generator().manual_seed(1))
    outputs = runtime.load(path).run({"ids": ids.numpy()})
    with torch.no_grad():
        expected = frozen(ids).numpy()
    assert list(outputs) == ["output"]
    assert np.abs(outputs["output"] - expected).max() < 1e-5


def test_onnx_runtime_decodes_in_every_run(written, tmp_path):
    """The operators that really run, with default options, are those of the file: none is folded
    away when it is loaded."""
    _, program, path = written
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = onnxruntime.InferenceSession(path, options)
    session.run(None, {"ids": np.zeros((2, 6), np.int64)})
    profile = json.loads(Path(session.end_profiling()).read_text())
    events = [event["args"]["op_name"] for event in profile if event["cat"] == "Node"]
    stored = [node["op_type"].decode() for node in graph_of(load(path)[0].root)["nodes"]]
    assert Counter(events) == Counter(stored)
    assert stored.count("Gather") > len(program.palettes)


def test_the_ledger_adds_up_and_has_no_dense_weight(written):
    _, program, path = written
    ledger = target.ledger(path)
    kinds = ledger.by_kind()
    assert ledger.total_bytes == path.stat().st_size
    palettes = program.palettes.values()
    assert kinds["lut"] == sum(p.lut.nbytes for p in palettes)
    assert kinds["indices"] == sum(-(-p.indices.size * p.bits // 8) for p in palettes)
    dense = {entry.name for entry in ledger.entries if entry.kind == "dense"}
    assert "head.weight" in dense
    assert not dense & program.palettes.keys()
    named = {entry.name for entry in ledger.entries if entry.kind == "indices"}
    assert named == program.palettes.keys()
    assert 0 < kinds["padding"] < 16 * len(load(path)[0].tables)


def test_a_file_is_the_onnx_file_in_another_form(tmp_path):
    """The same operators and tensors; decoded in parts, a million weights take 1.1 % more bytes."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1024, 1024)).eval()
    program = export(palettize(model, Recipe.uniform(4)), torch.ones(1, 1024))
    target.write(program, tmp_path / "m.ort")
    write_onnx(program, tmp_path / "m.onnx", Options(decode="packed", folds=False))
    ours, theirs = load(tmp_path / "m.ort")[1].graph, onnx.load(tmp_path / "m.onnx").graph
    assert [node.op_type for node in ours.node] == [node.op_type for node in theirs.node]
    stored = [{t.name: t.SerializeToString() for t in g.initializer} for g in (ours, theirs)]
    assert stored[0] == stored[1]
    size, other = (tmp_path / "m.ort").stat().st_size, (tmp_path / "m.onnx").stat().st_size
    assert 1024 * 1024 // 2 < size < 1.015 * other


@pytest.mark.slow
def test_the_same_program_gives_the_same_bytes_in_another_process(tmp_path, capfd, recwarn):
    """ONNX Runtime's own order changes from process to process."""
    code = (
        "import sys; from pathlib import Path; from tests.converters.ort.files import small_file; "
        "Path(sys.argv[1]).write_bytes(small_file())"
    )
    in_another_process(code, str(tmp_path / "m.ort"))
    small_file.cache_clear()
    assert small_file() == (tmp_path / "m.ort").read_bytes()
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_float16_luts_and_a_free_dimension(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).half().eval()
    frozen = palettize(model, Recipe.uniform(3))
    shapes = ({0: torch.export.Dim("batch")},)
    program = export(frozen, torch.ones(2, 8).half(), dynamic_shapes=shapes)
    target.write(program, tmp_path / "m.ort")
    stored = target.read_palettes(tmp_path / "m.ort")
    assert stored == dkm.palettes(frozen)
    assert {p.lut.dtype for p in stored.values()} == {np.dtype(np.float16)}
    x = np.linspace(-1, 1, 24, dtype=np.float16).reshape(3, 8)
    session = runtime.load(tmp_path / "m.ort")
    assert session.input_shapes == {"input": (None, 8)}
    assert load(tmp_path / "m.ort")[1].graph.input[0].type.tensor_type.shape.dim[0].dim_param
    outputs = session.run({"input": x})["output"]
    with torch.no_grad():
        assert np.abs(outputs - frozen(torch.from_numpy(x)).numpy()).max() < 1e-2


class TwoBranches(nn.Module):
    """Weights that inner graphs take from the outer one."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda v: self.a(v), lambda v: self.b(v), (x,))


def test_weights_of_inner_graphs(tmp_path):
    torch.manual_seed(0)
    frozen = palettize(TwoBranches().eval(), Recipe.uniform(2))
    program = export(frozen, torch.ones(2, 6))
    target.write(program, tmp_path / "m.ort")
    assert target.read_palettes(tmp_path / "m.ort") == program.palettes
    session = runtime.load(tmp_path / "m.ort")
    for sign in (1, -1):
        x = sign * torch.ones(2, 6)
        with torch.no_grad():
            expected = frozen(x).numpy()
        assert np.abs(session.run({"x": x.numpy()})["output"] - expected).max() < 1e-5
    assert "If" in operators(tmp_path / "m.ort")


def test_what_onnx_runtime_cannot_run_is_refused(tmp_path, capfd):
    """A valid ONNX model, but ONNX Runtime has no kernel for this type on the CPU."""
    model = nn.Sequential(nn.Conv1d(2, 4, 3)).double().eval()
    with pytest.raises(DkmError, match=r"ONNX Runtime cannot load it: .*Conv") as caught:
        target.write(export(model, torch.ones(1, 2, 6).double()), tmp_path / "m.ort")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("opset", [17, "18"])
def test_an_opset_out_of_range_is_refused(tmp_path, opset):
    frozen = palettize(nn.Sequential(nn.Linear(6, 4)).eval(), Recipe.uniform(2))
    program = export(frozen, torch.ones(1, 6))
    with pytest.raises(DkmError, match=f"opset is {opset}; it must be 18 to"):
        target.write(program, tmp_path / "m.ort", opset=opset)
    assert not list(tmp_path.iterdir())


def test_every_palette_that_fits_is_accepted():
    assert target.refuse(PaletteSpec(bits=7, cluster_dim=2, group_size=4), (8, 3)) is None
    assert "divide" in target.refuse(PaletteSpec(cluster_dim=3), (8, 3))
