"""No constant and no operation of a program is lost or changed on the way to an ONNX file."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from converters.onnx import target
from converters.ort import target as ort_target
from dkm_deploy.conversion.export import export
from tests.converters.exact_forms import TINY, VALUES, Forms, unequal

LEVELS = onnxruntime.GraphOptimizationLevel


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    """What PyTorch gives for the forms, and their file."""
    model, folder = Forms().eval(), tmp_path_factory.mktemp("forms")
    program = export(model, VALUES)
    target.write(program, folder / "m.onnx")
    ort_target.write(program, folder / "m.ort")
    return model(VALUES), folder, program


def outputs(path, level=LEVELS.ORT_DISABLE_ALL):
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.graph_optimization_level = 4, level
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"x": VALUES.numpy()}), strict=True))


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("m.onnx", LEVELS.ORT_DISABLE_ALL),
        ("m.onnx", LEVELS.ORT_ENABLE_ALL),
        ("m.ort", LEVELS.ORT_DISABLE_ALL),
    ],
)
def test_every_bit_is_pytorchs(forms, name, level):
    expected, folder, _ = forms
    found = outputs(folder / name, level)
    assert list(found) == list(expected)
    assert unequal(found, expected) == []


def test_every_constant_of_the_program_is_in_the_file(forms):
    _, folder, exported = forms
    model = onnx.load(folder / "m.onnx")
    held = {
        float(value)
        for tensor in model.graph.initializer
        for value in numpy_helper.to_array(tensor).ravel()
    }
    wanted = {
        float(np.float32(argument))
        for node in exported.program.graph.nodes
        for argument in node.args
        if isinstance(argument, float)
    }
    assert {float(np.float32(e)) for e in TINY} <= wanted
    assert wanted - {1.0} <= held  # a factor of one changes nothing


class Steps(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.plain = nn.Conv2d(4, 4, 1)
        nn.init.zeros_(self.plain.bias)

    def forward(self, x):
        return self.plain(self.norm(self.conv(nn.functional.pad(x * 1.0, (1, 1, 1, 1)))))


def test_dense_weights_and_their_order_of_operations_stay(tmp_path):
    torch.manual_seed(0)
    model = Steps().eval()
    for value in (model.norm.running_mean, model.norm.running_var):
        nn.init.uniform_(value)
    nn.init.normal_(model.norm.bias)
    program = export(model, torch.randn(1, 2, 5, 5))
    target.write(program, tmp_path / "m.onnx")
    graph = onnx.load(tmp_path / "m.onnx").graph
    # The padding of zeros is the convolution's own; a factor of one and an absent bias are gone.
    assert [node.op_type for node in graph.node] == ["Conv", "BatchNormalization", "Conv"]
    assert [len(node.input) for node in graph.node] == [2, 5, 3]
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    state = {name: t for name, t in model.state_dict().items() if "num_batches" not in name}
    assert held.keys() == state.keys()  # the bias of zeros too
    assert all(np.array_equal(held[name], value.numpy()) for name, value in state.items())


class RmsNorm(nn.Module):
    def forward(self, x):
        scale = torch.linspace(0.5, 2, 8)
        return scale * (x * torch.rsqrt(x.pow(2.00001).mean(-1, keepdim=True) + 1e-12))


def test_a_power_near_two_is_no_square_at_an_opset_with_norms(tmp_path):
    program = export(RmsNorm().eval(), torch.rand(3, 8))
    target.write(program, tmp_path / "m.onnx", opset=23)
    graph = onnx.load(tmp_path / "m.onnx").graph
    assert "RMSNormalization" not in [node.op_type for node in graph.node]
    powers = [numpy_helper.to_array(t).item() for t in graph.initializer if not t.dims]
    assert np.float32(2.00001) in powers
