"""Embeddings decoded by row, and files that no runtime decodes at load."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.runtimes.onnx_runtime.runtime import quiet_options, runtime
from tests.models import Beside, TiedNet, images, small_net


class Ids(nn.Module):
    """Token and position embeddings: ids ``(n, t)`` to ``(n, t, 24)``."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(50, 24)
        self.places = nn.Embedding(16, 24)

    def forward(self, ids):
        return self.tokens(ids) + self.places(torch.arange(ids.shape[1]))


def converted(model, recipe, inputs, path, **options):
    frozen = dkm.palettize(model.eval(), recipe)
    dkm.convert(frozen, inputs, path, **options)
    assert dkm.read_palettes(path) == dkm.palettes(frozen)
    return frozen


def optimised(path):
    """The graph that ONNX Runtime runs."""
    options = quiet_options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path.with_suffix(".optimised.onnx"))
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return onnx.load(options.optimized_model_filepath)


def floats_of(model, size):
    """Names of the float initializers with ``size`` values."""
    return [t.name for t in model.graph.initializer if t.data_type == 1 and np.prod(t.dims) == size]


def of_every_width(make, widths=range(1, 9)):
    """Layers side by side, and the recipe that gives each another width."""
    rules = [
        dkm.Rule(f"members.{place}.*", dkm.PaletteSpec(bits)) for place, bits in enumerate(widths)
    ]
    return Beside([make() for _ in widths]), dkm.Recipe(rules=rules)


def run_of(path, x):
    """Outputs in their order."""
    session = runtime.load(path)
    (name,) = [value.name for value in onnx.load(path).graph.input]
    found = session.run({name: x.numpy()})
    return [found[value.name] for value in onnx.load(path).graph.output]


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_an_embedding_of_any_width_gathers_packed_rows_and_is_exact(tmp_path, rank):
    torch.manual_seed(0)
    ids = torch.randint(0, 50, (2, 3, 4)[:rank])
    path = tmp_path / "m.onnx"
    frozen = converted(*of_every_width(lambda: nn.Embedding(50, 24)), ids, path)
    for rows, expected in zip(run_of(path, ids), frozen(ids), strict=True):
        assert rows.tobytes() == expected.numpy().tobytes()
    assert not floats_of(optimised(path), 50 * 24)  # none is decoded as a whole


def test_an_embedding_of_vectors_along_the_row_gathers_rows(tmp_path):
    recipe = dkm.Recipe.uniform(4, cluster_dim=4, axis=1)
    ids = torch.randint(0, 200, (2, 5))
    frozen = converted(nn.Embedding(200, 64), recipe, ids, tmp_path / "m.onnx")
    rows = runtime.load(tmp_path / "m.onnx").run({"input": ids.numpy()})["output"]
    assert np.array_equal(rows, frozen(ids).numpy())
    assert not floats_of(optimised(tmp_path / "m.onnx"), 200 * 64)


class Pair(nn.Module):
    """One table, read twice: ids ``(n, 2)`` to the sum of the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 24)

    def forward(self, ids):
        return self.table(ids[:, 0]) + self.table(ids[:, 1])


def test_rows_of_one_table_are_read_twice(tmp_path):
    torch.manual_seed(0)
    ids = torch.randint(0, 50, (3, 2))
    frozen = converted(Pair(), dkm.Recipe.uniform(3), ids, tmp_path / "m.onnx")
    found = runtime.load(tmp_path / "m.onnx").run({"ids": ids.numpy()})["output"]
    assert np.array_equal(found, frozen(ids).detach().numpy())


@pytest.mark.parametrize(
    "options", [{"cluster_dim": 2}, {"group_size": 10}, {"group_size": 4, "axis": 1}]
)
def test_rows_that_cannot_be_decoded_alone_are_decoded_whole(tmp_path, options):
    ids = torch.randint(0, 50, (2, 5))
    frozen = converted(
        nn.Embedding(50, 24), dkm.Recipe.uniform(3, **options), ids, tmp_path / "m.onnx"
    )
    rows = runtime.load(tmp_path / "m.onnx").run({"input": ids.numpy()})["output"]
    assert np.array_equal(rows, frozen(ids).numpy())
    assert floats_of(optimised(tmp_path / "m.onnx"), 50 * 24)


def test_ids_that_are_constants_need_no_rows(tmp_path):
    torch.manual_seed(0)
    ids = torch.randint(0, 50, (2, 5))
    frozen = converted(Ids(), dkm.Recipe.uniform(3), ids, tmp_path / "m.onnx")
    found = runtime.load(tmp_path / "m.onnx").run({"ids": ids.numpy()})["output"]
    assert np.array_equal(found, frozen(ids).numpy())


@pytest.mark.parametrize("decode", ["load", "packed"])
def test_a_tied_weight_is_decoded_once_and_whole(tmp_path, decode):
    ids = torch.randint(0, 20, (2, 5))
    path = tmp_path / "m.onnx"
    frozen = converted(TiedNet(), dkm.Recipe.uniform(3), ids, path, decode=decode)
    found = runtime.load(path).run({"ids": ids.numpy()})["output"]
    np.testing.assert_allclose(found, frozen(ids).detach().numpy(), atol=1e-5)
    nodes = onnx.load(path).graph.node
    assert sum(node.output[0] == "embed.weight" for node in nodes) == 1


@pytest.mark.parametrize(("decode", "decoded"), [("load", 8), ("packed", 0)])
def test_packed_files_are_not_decoded_at_load(tmp_path, decode, decoded):
    torch.manual_seed(0)
    path, x = tmp_path / "m.onnx", torch.randn(3, 80)
    frozen = converted(*of_every_width(lambda: nn.Linear(80, 48)), x, path, decode=decode)
    for found, expected in zip(run_of(path, x), frozen(x), strict=True):
        np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-5)
    assert len(floats_of(optimised(path), 80 * 48)) == decoded  # no table has that size


def test_a_packed_file_takes_any_batch_and_any_value(tmp_path):
    shapes = ({0: torch.export.Dim("batch")},)
    options = {"decode": "packed", "dynamic_shapes": shapes}
    frozen = converted(small_net(), dkm.Recipe.uniform(2), images(), tmp_path / "m.onnx", **options)
    session = runtime.load(tmp_path / "m.onnx")
    for x in (images(7), images(1).fill_(torch.inf), images(2).fill_(torch.nan)):
        found = session.run({"x": x.numpy()})["output"]
        np.testing.assert_allclose(found, frozen(x).detach().numpy(), atol=1e-5, equal_nan=True)


LARGE = {
    "Gemm": (nn.Linear(1024, 1024), (2, 1024)),
    "MatMul": (nn.Linear(1024, 1001, bias=False), (2, 3, 1024)),
    "Conv": (nn.Conv2d(256, 256, 3), (1, 256, 4, 4)),
}


@pytest.mark.parametrize("kind", LARGE)
def test_a_large_packed_weight_is_applied_in_parts(tmp_path, kind):
    layer, shape = LARGE[kind]
    widths = [3, 4, 8]
    model, recipe = of_every_width(lambda: copy.deepcopy(layer), widths)
    for member in model.members:
        nn.init.normal_(member.weight, std=0.02)
    x, path = torch.randn(shape), tmp_path / "m.onnx"
    frozen = converted(model, recipe, x, path, decode="packed")
    for found, expected in zip(run_of(path, x), frozen(x), strict=True):
        np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-5)
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert kinds.count(kind) == 2 * len(widths)
    rows = layer.weight.shape[0]
    for part in (rows, -(-rows // 16) * 8, rows // 16 * 8):
        assert not floats_of(optimised(path), layer.weight[:part].numel())


def test_parts_in_another_order_are_no_palette_of_ours(tmp_path):
    model, shape = LARGE["Gemm"]
    frozen = dkm.palettize(model, dkm.Recipe.uniform(4))
    path = tmp_path / "m.onnx"
    dkm.convert(frozen, torch.randn(shape), path, decode="packed")
    stored = onnx.load(path)
    for node in stored.graph.node:
        names = {"weight.part.0": "weight.part.1", "weight.part.1": "weight.part.0"}
        for values in (node.input, node.output):
            values[:] = [names.get(name, name) for name in values]
    onnx.save(stored, path)
    assert dkm.read_palettes(path) != dkm.palettes(frozen)


@pytest.mark.parametrize("decode", ["load", "packed"])
def test_a_matrix_that_a_product_wants_turned_is_decoded_so(tmp_path, decode):
    torch.manual_seed(0)
    model, recipe = of_every_width(lambda: nn.Linear(256, 40))
    x, path = torch.randn(2, 3, 256), tmp_path / "m.onnx"
    frozen = converted(model, recipe, x, path, decode=decode)
    for found, expected in zip(run_of(path, x), frozen(x), strict=True):
        np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-5)
    nodes = onnx.load(path).graph.node
    products = {node.input[1] for node in nodes if node.op_type == "MatMul"}
    assert products == {f"members.{place}.weight.T" for place in range(8)}
    assert all(node.op_type != "Transpose" for node in nodes)


@pytest.mark.parametrize("options", [{"bits": 8}, {"bits": 2, "group_size": 1}])
def test_recurrent_weights_are_decoded_by_what_every_runtime_folds(tmp_path, options):
    """OpenVINO's LSTM and GRU take constants alone, and it does not fold GatherElements."""
    path, x = tmp_path / "m.onnx", torch.randn(2, 5, 16)
    converted(nn.LSTM(16, 8, batch_first=True), dkm.Recipe.uniform(**options), x, path)
    assert all(node.op_type != "GatherElements" for node in onnx.load(path).graph.node)


@pytest.mark.parametrize("edit", ["a table without rows", "a shape that is computed"])
def test_damaged_rows_are_refused_in_one_line(tmp_path, edit):
    torch.manual_seed(0)
    path = tmp_path / "m.onnx"
    converted(nn.Embedding(50, 24), dkm.Recipe.uniform(4), torch.zeros(2, dtype=torch.long), path)
    model = onnx.load(path)
    if edit == "a table without rows":
        plane = next(t for t in model.graph.initializer if t.data_type == onnx.TensorProto.UINT8)
        plane.dims[:] = [0, 12]
        plane.raw_data = b""
    else:
        model.graph.node[-1].input[1] = model.graph.node[-1].input[0]
    onnx.save(model, path)
    with pytest.raises(dkm.DkmError, match="weight: ") as caught:
        dkm.read_palettes(path)
    assert "\n" not in str(caught.value)


class NoInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self):
        return self.fc(torch.ones(1, 4))


def test_packed_without_an_input_is_refused(tmp_path):
    frozen = dkm.palettize(NoInput(), dkm.Recipe.uniform(2))
    with pytest.raises(dkm.DkmError, match="needs a model with a tensor input"):
        dkm.convert(frozen, (), tmp_path / "m.onnx", decode="packed")
    assert not list(tmp_path.iterdir())


def test_an_unknown_way_to_decode_is_refused(tmp_path):
    frozen = dkm.palettize(small_net(), dkm.Recipe.uniform(2))
    with pytest.raises(dkm.DkmError, match="decode is 'never'; it must be one of load, packed"):
        dkm.convert(frozen, images(), tmp_path / "m.onnx", decode="never")
