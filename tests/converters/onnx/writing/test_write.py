"""Whole models through export, the ONNX file and ONNX Runtime, against PyTorch."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from converters.onnx import target
from dkm_deploy.conversion.export import export
from dkm_deploy.conversion.exported import ExportedModel
from dkm_deploy.errors import DkmError
from dkm_deploy.palette_spec import PaletteSpec
from dkm_deploy.post_training.palettize import palettize
from dkm_deploy.recipe import Recipe
from dkm_deploy.rule import Rule
from dkm_deploy.runtimes.onnx_runtime.runtime import runtime


class SmallCnn(nn.Module):
    """Convolution, BatchNorm, depthwise, residual, linear."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 5)

    def forward(self, image):
        stem = torch.relu(self.bn1(self.stem(image)))
        mixed = torch.relu(self.bn2(self.depthwise(stem)) + stem)
        return self.fc(mixed.mean((2, 3)))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids):
        return {"hidden": self.embedding(ids), "logits": self.head(self.embedding(ids))}


def exported(
    model: nn.Module, recipe: Recipe, inputs, dynamic_shapes=None
) -> tuple[nn.Module, ExportedModel]:
    frozen = palettize(model.eval(), recipe)
    return frozen, export(frozen, inputs, dynamic_shapes=dynamic_shapes)


def small_cnn(bits: int = 4) -> tuple[nn.Module, ExportedModel]:
    """A small CNN with statistics that BatchNorm fusion would show in, and a free batch."""
    torch.manual_seed(0)
    model = SmallCnn()
    for bn in (model.bn1, model.bn2):
        nn.init.normal_(bn.running_mean)
        nn.init.uniform_(bn.running_var, 0.5, 2)
        nn.init.uniform_(bn.weight, 0.5, 2)
        nn.init.normal_(bn.bias)
    shapes = ({0: torch.export.Dim("batch")},)
    return exported(model, Recipe.uniform(bits), torch.randn(2, 3, 8, 8), shapes)


def difference(frozen, path, inputs: dict[str, torch.Tensor]) -> float:
    """Largest absolute difference of any output to PyTorch's."""
    outputs = runtime.load(path).run({name: value.numpy() for name, value in inputs.items()})
    with torch.no_grad():
        expected = frozen(*inputs.values())
    if torch.is_tensor(expected):
        expected = {"output": expected}
    assert list(outputs) == list(expected)
    return max(float(np.abs(outputs[k] - v.numpy()).max()) for k, v in expected.items())


@pytest.mark.parametrize("bits", [2, 7])
def test_a_cnn_gives_the_same_numbers_at_any_batch(tmp_path, bits):
    frozen, program = small_cnn(bits)
    target.write(program, tmp_path / "m.onnx")
    assert runtime.load(tmp_path / "m.onnx").input_shapes == {"image": (None, 3, 8, 8)}
    for batch in (1, 3):
        image = torch.randn(batch, 3, 8, 8)
        assert difference(frozen, tmp_path / "m.onnx", {"image": image}) < 1e-5
    assert target.read_palettes(tmp_path / "m.onnx") == program.palettes


def test_the_graph_is_the_models_and_the_decodes(tmp_path):
    _, program = small_cnn(bits=4)
    target.write(program, tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    made = [node.op_type for node in model.graph.node]
    assert made.count("BatchNormalization") == 2  # not fused into the palettes
    assert made.count("Conv") == 2
    assert made.count("Gather") == 3 * 2  # plane and LUT, for three weights
    assert made.count("Identity") == made.count("Constant") == 0
    assert {(o.domain, o.version) for o in model.opset_import} == {("", 18)}
    assert {node.domain for node in model.graph.node} == {""}
    assert model.ir_version <= 9
    stored = {tensor.name for tensor in model.graph.initializer}
    assert {f"{weight}.lut" for weight in program.palettes} <= stored
    assert not any("parametrizations" in name for name in stored)
    assert "pkg.torch" not in str(model)


def test_a_file_is_its_palettes_and_little_more(tmp_path):
    _, program = small_cnn(bits=4)
    target.write(program, tmp_path / "m.onnx")
    ledger = target.ledger(tmp_path / "m.onnx")
    kinds = ledger.by_kind()
    assert ledger.total_bytes == (tmp_path / "m.onnx").stat().st_size
    assert kinds["indices"] == sum(p.indices.size * 4 // 8 for p in program.palettes.values())
    assert kinds["lut"] == sum(p.lut.nbytes for p in program.palettes.values())
    assert kinds["dense"] == 4 * (2 * 4 * 8 + 5)
    assert kinds["graph"] + kinds["metadata"] < 1024 + 256 * (len(program.palettes) + 8)


def test_writing_is_deterministic_and_silent(tmp_path, capfd, recwarn):
    _, program = small_cnn()
    for name in ("a.onnx", "b.onnx"):
        target.write(program, tmp_path / name)
    target.write(small_cnn()[1], tmp_path / "c.onnx")
    files = [(tmp_path / name).read_bytes() for name in ("a.onnx", "b.onnx", "c.onnx")]
    assert files[0] == files[1] == files[2]
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_a_tied_weight_is_stored_once(tmp_path):
    torch.manual_seed(0)
    ids = torch.randint(0, 20, (2, 7))
    frozen, program = exported(Tied(), Recipe.uniform(3), ids)
    target.write(program, tmp_path / "m.onnx")
    assert difference(frozen, tmp_path / "m.onnx", {"ids": ids}) < 1e-5
    stored = target.read_palettes(tmp_path / "m.onnx")
    assert stored == program.palettes
    assert list(stored) == ["embedding.weight"]
    kinds = target.ledger(tmp_path / "m.onnx").by_kind()
    assert kinds["indices"] == 20 * 8 * 3 // 8
    assert kinds["dense"] == 0


def test_weights_with_equal_values_keep_their_names(tmp_path):
    """The exporter's optimiser gives equal tensors one initializer."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].load_state_dict(model[0].state_dict())
    frozen, program = exported(model, Recipe.uniform(2), torch.randn(2, 8))
    target.write(program, tmp_path / "m.onnx")
    assert set(target.read_palettes(tmp_path / "m.onnx")) == {"0.weight", "1.weight"}
    assert difference(frozen, tmp_path / "m.onnx", {"input": torch.randn(2, 8)}) < 1e-5


def test_mixed_layouts_and_dense_weights_in_one_file(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Flatten(), nn.Linear(32, 12), nn.Linear(12, 6))
    rules = [
        Rule("0.weight", PaletteSpec(bits=3, cluster_dim=2, axis=1)),
        Rule("2.weight", PaletteSpec(bits=5, group_size=4)),
        Rule("3.weight", skip=True),
    ]
    frozen, program = exported(model, Recipe(rules=rules), torch.randn(2, 4, 4, 4))
    target.write(program, tmp_path / "m.onnx")
    assert target.read_palettes(tmp_path / "m.onnx") == program.palettes
    dense = {e.name for e in target.ledger(tmp_path / "m.onnx").entries if e.kind == "dense"}
    assert "3.weight" in dense
    assert difference(frozen, tmp_path / "m.onnx", {"input": torch.randn(2, 4, 4, 4)}) < 1e-5


class GivesItsWeight(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        return {"y": self.fc(x), "weight": self.fc.weight}


def test_a_weight_that_is_an_output_keeps_the_outputs_name(tmp_path):
    _, program = exported(GivesItsWeight(), Recipe.uniform(2), torch.randn(2, 6))
    target.write(program, tmp_path / "m.onnx")
    outputs = runtime.load(tmp_path / "m.onnx").run({"x": np.ones((2, 6), np.float32)})
    weight = program.palettes["fc.weight"].decode()
    assert outputs["weight"].tobytes() == weight.tobytes()
    assert target.read_palettes(tmp_path / "m.onnx") == program.palettes


def test_a_model_without_palettes_has_none(tmp_path):
    model = nn.Linear(6, 4).eval()
    target.write(export(model, torch.randn(2, 6)), tmp_path / "m.onnx")
    assert target.read_palettes(tmp_path / "m.onnx") == {}
    assert difference(model, tmp_path / "m.onnx", {"input": torch.randn(2, 6)}) < 1e-5


def test_a_newer_opset_on_demand(tmp_path):
    frozen, program = small_cnn()
    target.write(program, tmp_path / "m.onnx", opset=21)
    model = onnx.load(tmp_path / "m.onnx")
    assert [o.version for o in model.opset_import] == [21]
    assert model.ir_version == 10
    image = torch.randn(2, 3, 8, 8)
    assert difference(frozen, tmp_path / "m.onnx", {"image": image}) < 1e-5


@pytest.mark.parametrize("opset", [17, 999, "18"])
def test_an_opset_out_of_range_is_refused(tmp_path, opset):
    _, program = small_cnn()
    with pytest.raises(DkmError, match=f"opset is {opset}; it must be 18 to"):
        target.write(program, tmp_path / "m.onnx", opset=opset)
    assert not list(tmp_path.iterdir())


class NamedLikeItsInput(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(4))

    def forward(self, weight):
        return weight @ self.weight


def test_a_weight_named_like_an_input_is_refused(tmp_path):
    _, program = exported(NamedLikeItsInput(), Recipe.uniform(1), torch.randn(4, 4))
    with pytest.raises(DkmError, match="weight: an input or a step of the model has this name"):
        target.write(program, tmp_path / "m.onnx")


class Unsupported(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return torch.linalg.eigvalsh(self.fc(x))


def test_an_operation_without_onnx_form_is_named(tmp_path, capfd):
    _, program = exported(Unsupported(), Recipe.uniform(2), torch.randn(4, 4))
    with pytest.raises(DkmError, match="linalg_eigh") as caught:
        target.write(program, tmp_path / "m.onnx")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


def test_every_palette_that_fits_is_accepted():
    assert target.refuse(PaletteSpec(bits=7, cluster_dim=2, group_size=4), (8, 3)) is None
    assert "divide" in target.refuse(PaletteSpec(cluster_dim=3), (8, 3))


def test_the_lowest_optimisation_level_gives_the_same(tmp_path):
    """Nothing relies on ONNX Runtime folding the decodes."""
    _, program = small_cnn(bits=5)
    target.write(program, tmp_path / "m.onnx")
    image = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    results = []
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        session = onnxruntime.InferenceSession(tmp_path / "m.onnx", options)
        results.append(session.run(None, {"image": image})[0])
    assert np.abs(results[0] - results[1]).max() < 1e-5


def test_logsigmoid_far_below_zero(tmp_path):
    x, path = torch.tensor([-300.0, -104.0, -20.0, 0.0, 20.0, 300.0]), tmp_path / "m.onnx"
    target.write(export(nn.LogSigmoid().eval(), x), path)
    session = runtime.load(path)
    (found,) = session.run({name: x.numpy() for name in session.input_shapes}).values()
    assert np.allclose(found, nn.functional.logsigmoid(x), rtol=1e-6, atol=0)
