"""Weights without a palette, in files of every kind: right ones pass, changed ones are missed."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

import dkm_deploy as dkm
from dkm_deploy.conversion.registry import reader_for
from dkm_deploy.formats.dense_tensor import DenseTensor
from dkm_deploy.validation.check import Check
from dkm_deploy.validation.dense_weights.check import dense_check
from dkm_deploy.validation.dense_weights.match import compare
from dkm_deploy.validation.dense_weights.reference import DenseReference, dense_reference

X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """One of each: a convolution with its normalization, to be folded; known rows of a table; a
    recurrent layer in both directions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.conv, self.folded = nn.Conv2d(8, 12, 3), nn.BatchNorm2d(12)
        self.places = nn.Parameter(torch.randn(20, 12))
        self.lstm = nn.LSTM(12, 4, bidirectional=True, batch_first=True)
        self.Head = nn.Linear(8, 6)
        for norm in (self.norm, self.folded):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.folded(self.conv(torch.relu(self.norm(self.stem(x))))))
        x, _ = self.lstm(x.flatten(2).mT + self.places[:16])
        return self.Head(x.mean(1))


FOUR = dkm.PaletteSpec(4)
RECIPE = dkm.Recipe(FOUR, [dkm.Rule("stem.weight", FOUR), dkm.Rule("*", skip=True)])
FILES = {
    "m.onnx": {},
    "half.onnx": {"storage_dtype": "float16"},
    "m.mlpackage": {},
    "old.mlpackage": {"minimum_deployment_target": "iOS16", "compute_precision": "float32"},
}


def frozen() -> nn.Module:
    return dkm.palettize(Net().eval(), RECIPE)


def check(path, model: nn.Module | None = None) -> Check:
    return dense_check(path, reader_for(path), dense_reference(model or frozen()))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return {n: dkm.convert(frozen(), X, folder / n, **how).path for n, how in FILES.items()}


@pytest.mark.parametrize("name", FILES)
def test_every_weight_of_a_right_file_is_found(files, name):
    found = check(files[name])
    assert found.status == "passed", found.reason
    count = len(dense_reference(frozen()).tensors)
    assert found.reason.startswith(f"{count} of {count} equal, stored as float")


CHANGES = {
    "Head.bias": lambda m: m.Head.bias.zero_(),
    "norm.running_var": lambda m: m.norm.running_var.mul_(1.01),
    "norm.running_mean": lambda m: m.norm.running_mean.mul_(1.01),
    "folded": lambda m: m.folded.running_var.mul_(1.02),
    "conv.weight": lambda m: m.conv.weight.mul_(1 + 0.02 * torch.randn(12, 8, 3, 3)),
    "lstm.weight_ih_l0": lambda m: m.lstm.weight_ih_l0_reverse.add_(0.01 * torch.randn(16, 12)),
    "lstm.bias": lambda m: m.lstm.bias_hh_l0.mul_(1.05),
    "places": lambda m: m.places.add_(0.01 * torch.randn(20, 12)),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("weight", CHANGES)
def test_a_changed_weight_fails_by_its_name(files, name, weight):
    """The reference is changed, not the file: to the check it is all the same."""
    model = frozen()
    with torch.no_grad():
        CHANGES[weight](model)
    found = check(files[name], model)
    if weight == "Head.bias":  # zeros have no length to be relative to
        assert "inf %" in found.reason
    assert found.status == "failed", found.reason
    assert weight in found.reason


def test_the_values_of_another_weight_are_told(files, tmp_path):
    model = onnx.load(files["m.onnx"])
    held = {t.name: t for t in model.graph.initializer}
    held["norm.weight"].CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(held["norm.bias"]), "norm.weight")
    )
    onnx.save(model, tmp_path / "m.onnx")
    found = check(tmp_path / "m.onnx")
    assert found.status == "failed"
    assert "norm.weight: off by up to" in found.reason
    assert "the file has the values of norm.bias there" in found.reason


def test_both_sides_that_could_not_be_compared_are_listed(files):
    model = frozen()
    model.unused = nn.Linear(3, 5)
    del model.Head
    found = check(files["m.onnx"], model)
    assert found.status == "passed"
    assert "not found in the file: unused.weight (60 bytes), unused.bias (20 bytes)" in found.reason
    assert "in the file but no weight of the model: Head.weight (192 bytes)" in found.reason


def test_nothing_to_compare_is_not_passed(files):
    found = check(files["m.onnx"], nn.Linear(31, 17))
    assert (found.status, "none could be compared; not found" in found.reason) == ("skipped", True)
    assert check(files["m.onnx"], nn.ReLU()).status == "skipped"
    assert dense_check(files["m.onnx"], object(), dense_reference(frozen())).status == "skipped"  # type: ignore[arg-type]


def test_a_checkpoint(tmp_path):
    dkm.save(frozen(), tmp_path / "m.safetensors")
    assert check(tmp_path / "m.safetensors").status == "passed"
    model = frozen()
    model.conv.bias.data[3] += 1
    assert "conv.bias: off by up to 1, " in check(tmp_path / "m.safetensors", model).reason


def test_the_model_is_left_as_it_is():
    model = frozen()
    before = copy.deepcopy(model.state_dict())
    dense_reference(model)
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


@pytest.mark.parametrize(
    "made",
    [
        lambda w: np.clip(w, -1, 1),
        np.tanh,
        lambda w: w * (np.arange(w.size).reshape(w.shape) % 7 > 0),
        lambda w: w + np.float32(0.05) * w[:1],
        lambda w: 1.07 * w,
    ],
    ids=["clamped", "squashed", "masked", "shifted", "scaled"],
)
def test_what_a_program_works_out_of_a_weight_is_not_called_wrong(made):
    weight = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32) / 2
    reference = DenseReference({"a.weight": weight}, {})
    values = made(weight).astype(np.float32)
    found = compare([DenseTensor("const_3", values.nbytes, lambda: values)], reference)
    assert (found.wrong, found.strange) == ([], {"const_3": values.nbytes})
    noisy = weight + np.float32(0.02) * np.random.default_rng(1).normal(size=(40, 16))
    noisy = noisy.astype(np.float32)
    found = compare([DenseTensor("const_3", noisy.nbytes, lambda: noisy)], reference)
    assert [difference.weight for difference in found.wrong] == ["a.weight"]


@pytest.mark.parametrize(("value", "equal"), [(0.25, {"head.bias"}), (0.5, set())])
def test_the_bias_of_a_lone_logit_may_be_a_scalar(value, equal):
    reference = DenseReference({"head.bias": np.array([0.25], np.float32)}, {})
    stored = DenseTensor("head.bias", 4, lambda: np.array(value, np.float32))
    assert compare([stored], reference).equal == equal
