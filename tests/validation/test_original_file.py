"""Files that were palettized without a PyTorch model, against the file they were made from."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors.torch import save_file
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.cli import main
from tests.models import images


def net() -> nn.Module:
    """Large enough that palettes make its file smaller."""
    torch.manual_seed(0)
    convolutions = (nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU())
    pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*convolutions, *pooled, nn.Linear(32, 5)).eval()


LABELS = net()(images(24)).argmax(1)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    return dkm.convert(net(), images(1), folder / "net.onnx").path


@pytest.fixture(scope="module")
def small(original):
    """The same with palettes of 5 and of 1 bit."""
    paths = [original.with_name(f"net{bits}.onnx") for bits in (5, 1)]
    for path, bits in zip(paths, (5, 1), strict=True):
        dkm.palettize_file(original, path, dkm.Recipe.uniform(bits))
    return paths


def test_each_file_is_compared_with_the_original_under_its_own_palettes(original, small):
    limits = dkm.Limits(min_agreement=0.8, max_size_ratio=0.9)
    report = dkm.validate(small, original=original, inputs=images(24), labels=LABELS, limits=limits)
    before, five, one = report.models
    assert (before.name, before.path, before.checks) == ("original (net.onnx)", None, ())
    assert before.metric == 100
    assert before.agreement == 1
    for model in (five, one):
        checks = {check.name: check.status for check in model.checks}
        assert checks["palettes"] == "skipped"
        assert checks["parity"] == "passed"
        assert model.errors["output"].relative < 1e-5
        assert model.size_ratio > 1
        assert model.half_ratio is None
    assert five.agreement > one.agreement
    assert report.failed == tuple(line for line in report.failed if line.startswith("net1.onnx: "))


def test_what_the_file_computes_otherwise_fails(original, small, tmp_path):
    model = onnx.load(small[0])
    bias = next(t for t in model.graph.initializer if t.name == "6.bias")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 1, bias.name))
    onnx.save(model, tmp_path / "bad.onnx")
    report = dkm.validate([tmp_path / "bad.onnx"], original=original, inputs=images(2))
    dense, parity = report.failed
    assert dense.startswith("bad.onnx: dense: 6.bias: off by up to 1, ")
    assert parity.startswith("bad.onnx: parity: ")
    assert parity.endswith("those of a PyTorch model, which is not given")


def test_an_original_file_beside_a_pytorch_reference(original, tmp_path):
    frozen = dkm.palettize(net(), dkm.Recipe.uniform(5))
    path = dkm.convert(frozen, images(1), tmp_path / "m.mlpackage").path
    report = dkm.validate([path], reference=frozen, original=original, inputs=images(4))
    assert report
    assert [model.name for model in report.models] == [
        "original (net.onnx)",
        "frozen (hard)",
        "m.mlpackage",
    ]
    assert report.models[0].divergence is None  # other weights, not a fault
    assert report.files[0].agreement is not None


def test_arrays_go_to_the_file_as_they_are(tmp_path):
    """A state whose samples are not along its first dimension, as recurrent models have it."""

    class Cell(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.lstm = nn.LSTM(16, 16)

        def forward(self, x, state):
            return self.lstm(x[None], (state, state))[1][0]

    inputs = {"x": torch.randn(3, 16), "state": torch.randn(1, 3, 16)}
    original = dkm.convert(Cell().eval(), inputs, tmp_path / "cell.onnx").path
    dkm.palettize_file(original, tmp_path / "small.onnx", dkm.Recipe.uniform(2))
    given = {"x": inputs["x"], "state": inputs["state"].numpy()}
    report = dkm.validate([tmp_path / "small.onnx"], original=original, inputs=given)
    assert report
    assert report.samples == 3


def test_a_scalar_among_the_inputs(tmp_path):
    """It comes first, and the batch of the other input is fixed."""
    parts = [numpy_helper.from_array(np.ones((32, 32), np.float32), "w")]
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w"], ["product"]),
        onnx.helper.make_node("Mul", ["product", "gain"], ["y"]),
    ]
    gain, x, y = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("gain", []), ("x", [2, 32]), ("y", [2, 32]))
    )
    graph = onnx.helper.make_graph(nodes, "g", [gain, x], [y], parts)
    opset = onnx.helper.make_opsetid("", 17)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    dkm.palettize_file(tmp_path / "m.onnx", tmp_path / "small.onnx", dkm.Recipe.uniform(2))
    inputs = {"gain": np.float32(2), "x": torch.randn(6, 32)}
    report = dkm.validate([tmp_path / "small.onnx"], original=tmp_path / "m.onnx", inputs=inputs)
    assert report
    assert report.samples == 6


def test_a_file_of_another_model_is_told(original, tmp_path):
    frozen = dkm.palettize(nn.Sequential(nn.Linear(8, 5)), dkm.Recipe.uniform(2))
    path = dkm.convert(frozen, torch.ones(1, 8), tmp_path / "other.onnx").path
    with pytest.raises(
        dkm.DkmError, match=r"other\.onnx: it cannot be compared .* no weight '0\.weight' of shape"
    ):
        dkm.validate([path], original=original, inputs=images(2))


@pytest.mark.parametrize("given", [None, net()])
def test_without_a_reference_there_must_be_a_file(small, given):
    with pytest.raises(dkm.DkmError, match="give reference=, or original= as the file"):
        dkm.validate(small, original=given, inputs=images(2))


def test_on_the_command_line(original, small, tmp_path, capsys):
    save_file({"x": images(24), "labels": LABELS}, tmp_path / "inputs.safetensors")
    command = ["validate", str(small[0]), "--original", str(original)]
    given = ["--inputs", str(tmp_path / "inputs.safetensors"), "--min-agreement", "50%"]
    assert main([*command, *given]) == 0
    assert "original (net.onnx)" in capsys.readouterr().out
    assert main([*command, *given, "--require"]) == 1  # there are no palettes to compare with
    assert main([*command, *given, "--require-checks", "parity,agreement"]) == 0
    assert main(command) == 2
    assert "--inputs is missing" in capsys.readouterr().err


def test_dense_weights_may_be_half(tmp_path):
    half = net().half()
    original = dkm.convert(half, images(1).half(), tmp_path / "half.onnx").path
    dkm.palettize_file(original, tmp_path / "small.onnx", dkm.Recipe.uniform(3))
    inputs = images(2).half()
    report = dkm.validate([tmp_path / "small.onnx"], original=original, inputs=inputs)
    assert np.isfinite(report.files[0].errors["output"].relative)
    assert report
