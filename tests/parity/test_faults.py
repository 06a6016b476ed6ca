"""Faults that one norm over an output hides, in Core ML and in ONNX."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import dkm_deploy as dkm

SUFFIXES = (".mlpackage", ".onnx")


class Detector(nn.Module):
    """Boxes near 320 and class scores, in one output: (n, 3, 8, 8) to (n, 12, 16)."""

    fault = ""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.stem, self.norm = nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16)
        self.middle = nn.Conv2d(16, 16, 1)
        self.box, self.scores = nn.Conv2d(16, 4, 1), nn.Conv2d(16, 8, 1)
        nn.init.uniform_(self.norm.running_var, 0.3, 1.5)
        nn.init.normal_(self.norm.running_mean)
        with torch.no_grad():
            self.box.weight.mul_(20)
            self.box.bias.fill_(320)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.stem(x)))
        x = self.middle(x)
        x = x if self.fault == "no ReLU" else functional.relu(x)
        scores = torch.sigmoid(2 * self.scores(x) - 1).flatten(2)
        if self.fault == "flat scores":
            scores = 0 * scores + 0.5
        if self.fault == "swapped scores":
            scores = torch.cat([scores[:, 1:2], scores[:, :1], scores[:, 2:]], 1)
        return torch.cat([self.box(x).flatten(2), scores], 1)


IMAGES = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(2))
RECIPE = dkm.Recipe(dkm.PaletteSpec(4), [dkm.Rule("middle.*", skip=True)])


def program(name):
    return lambda model: setattr(model, "fault", name)


def noisy(model):
    weight = model.middle.weight.data
    weight *= 1 + 0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))


FAULTS = {
    "flat scores": program("flat scores"),
    "swapped scores": program("swapped scores"),
    "no ReLU": program("no ReLU"),
    "mean 1 % off": lambda model: model.norm.running_mean.mul_(1.01),
    "variance 1 % off": lambda model: model.norm.running_var.mul_(1.01),
    "no bias": lambda model: model.middle.bias.data.zero_(),
    "noise on a dense weight": noisy,
    "epsilon": lambda model: setattr(model.norm, "eps", 2e-3),
}


@pytest.fixture(scope="module")
def frozen():
    return dkm.palettize(Detector().eval(), RECIPE)


def parity(path, reference, inputs):
    [row] = dkm.validate([path], reference=reference, inputs=inputs).files
    [check] = [check for check in row.checks if check.name == "parity"]
    return check


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_right_file_passes(frozen, tmp_path, suffix):
    path = dkm.convert(frozen, IMAGES[:1], tmp_path / f"m{suffix}").path
    check = parity(path, frozen, IMAGES)
    assert check.status == "passed", check.reason
    assert f"the model's own float{16 if suffix == '.mlpackage' else 32} noise" in check.reason


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_fails(frozen, tmp_path, fault, suffix):
    wrong = copy.deepcopy(frozen)
    FAULTS[fault](wrong)
    path = dkm.convert(wrong, IMAGES[:1], tmp_path / f"m{suffix}", try_file=False).path
    check = parity(path, frozen, IMAGES)
    assert check.status == "failed", check.reason
