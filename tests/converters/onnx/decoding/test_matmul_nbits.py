"""The 8-bit kernel tier: what runs on MatMulNBits, what it costs in numbers, what is refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.clustering.quantizers.int8_lut import on_grid, step_of
from dkm_deploy.runtimes.onnx_runtime.runtime import runtime


def _mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(256, 96), nn.ReLU(), nn.Linear(96, 64, bias=False)).eval()


def _rounded(model, **recipe):
    return dkm.quantize_luts(dkm.palettize(model, dkm.Recipe.uniform(**recipe)))


def test_rounded_luts_lie_on_a_grid_and_move_little():
    before = dkm.palettize(_mlp(), dkm.Recipe.uniform(4))
    after = dkm.palettes(dkm.quantize_luts(before))
    for name, palette in dkm.palettes(before).items():
        assert not on_grid(palette.lut)
        assert on_grid(after[name].lut)
        assert np.array_equal(after[name].indices, palette.indices)
        assert np.abs(after[name].lut - palette.lut).max() <= 0.51 * step_of(palette.lut)


@pytest.mark.parametrize(
    ("shape", "recipe"),
    [
        ((3, 256), {"bits": 4}),
        ((2, 3, 256), {"bits": 3}),
        ((2, 3, 256), {"bits": 4, "group_size": 16}),
        pytest.param((3, 256), {"bits": 8}, marks=pytest.mark.slow),
        pytest.param((2, 3, 256), {"bits": 4}, marks=pytest.mark.slow),
    ],
)
def test_products_run_on_the_kernel_within_its_rounding(tmp_path, shape, recipe):
    frozen, x = _rounded(_mlp(), **recipe), torch.randn(shape)
    artifact = dkm.convert(frozen, x, tmp_path / "m.onnx", decode="int8")
    assert any("rounds the inputs of matrix products to 8 bits" in note for note in artifact.notes)
    made = [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node]
    assert made.count("MatMulNBits") == 2
    assert not {"Gemm", "MatMul", "Transpose"} & set(made)
    found = runtime.load(tmp_path / "m.onnx").run({"input": x.numpy()})["output"]
    with torch.no_grad():
        expected = frozen(x).numpy()
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert 0 < error < 0.02  # activations are rounded to 8 bits
    assert dkm.read_palettes(tmp_path / "m.onnx") == dkm.palettes(frozen)


class Twice(nn.Module):
    """One weight in two products."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 64)

    def forward(self, x):
        return self.fc(torch.relu(self.fc(x)))


def test_a_weight_of_two_products_is_decoded_once(tmp_path):
    torch.manual_seed(0)
    frozen, x = _rounded(Twice().eval(), bits=4), torch.randn(3, 64)
    dkm.convert(frozen, x, tmp_path / "m.onnx", decode="int8")
    nodes = onnx.load(tmp_path / "m.onnx").graph.node
    assert [node.op_type for node in nodes].count("MatMulNBits") == 2
    assert sum(node.output[0] == "fc.weight.codes" for node in nodes) == 1
    found = runtime.load(tmp_path / "m.onnx").run({"x": x.numpy()})["output"]
    np.testing.assert_allclose(found, frozen(x).detach().numpy(), atol=0.05)


def test_what_the_kernel_cannot_hold_is_decoded_at_load(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(72, 16)).eval()
    frozen, x = _rounded(model, bits=3), torch.randn(2, 3, 5, 5)
    dkm.convert(frozen, x, tmp_path / "m.onnx", decode="int8")
    made = [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node]
    assert made.count("Conv") == made.count("Gemm") == 1  # 72 is no multiple of 16
    found = runtime.load(tmp_path / "m.onnx").run({"input": x.numpy()})["output"]
    np.testing.assert_allclose(found, frozen(x).detach().numpy(), atol=1e-5)


def test_luts_that_do_not_lie_on_a_grid_are_refused(tmp_path):
    frozen = dkm.palettize(_mlp(), dkm.Recipe.uniform(4))
    with pytest.raises(dkm.DkmError, match=r"0.weight: .*8-bit grid; convert dkm.quantize_luts"):
        dkm.convert(frozen, torch.randn(3, 256), tmp_path / "m.onnx", decode="int8")
    assert not list(tmp_path.iterdir())


def test_a_changed_step_does_not_pass(tmp_path):
    frozen = _rounded(_mlp(), bits=4)
    dkm.convert(frozen, torch.randn(3, 256), tmp_path / "m.onnx", decode="int8")
    model = onnx.load(tmp_path / "m.onnx")
    step = next(t for t in model.graph.initializer if t.name == "0.weight.step")
    step.CopyFrom(onnx.numpy_helper.from_array(2 * onnx.numpy_helper.to_array(step), step.name))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(dkm.DkmError, match=r"0\.weight: the graph does not decode"):
        dkm.read_palettes(tmp_path / "m.onnx")


def test_a_model_without_palettes_has_no_luts_to_round():
    with pytest.raises(dkm.DkmError, match="no palettes"):
        dkm.quantize_luts(nn.Linear(4, 4))
