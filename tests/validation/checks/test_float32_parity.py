"""Faults too small for float16, which the same file computed in float32 shows."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.parity.trial_run import DiffersError, tried
from dkm_deploy.validation.checks import float32_parity


class Model(nn.Module):
    """A convolution with batch normalization, and a layer normalization with GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.after, self.head = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.stem(x)).mean((2, 3))
        return torch.cat([x, self.head(nn.functional.gelu(self.after(x)))], 1)


@pytest.fixture(scope="module")
def frozen() -> nn.Module:
    torch.manual_seed(0)
    model = Model()
    nn.init.uniform_(model.norm.running_var, 0.5, 2.0)
    return dkm.palettize(model, 4)


@pytest.fixture(scope="module")
def inputs() -> torch.Tensor:
    return torch.randn(32, 3, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def right(frozen, inputs, tmp_path_factory):
    """A file of the model as it is."""
    return dkm.convert(frozen, inputs[:1], tmp_path_factory.mktemp("right") / "m.mlpackage")


@pytest.fixture(scope="module")
def wrong(frozen, inputs, tmp_path_factory):
    """A file of a model whose LayerNorm has another epsilon."""
    written = copy.deepcopy(frozen)
    written.after.eps = 2e-5
    return dkm.convert(written, inputs[:1], tmp_path_factory.mktemp("wrong") / "m.mlpackage")


def _parity(file, frozen, inputs):
    report = dkm.validate(file, reference=frozen, inputs=inputs)
    return next(check for check in report.files[0].checks if check.name == "parity")


def test_what_float16_hides_is_missed_in_float32(frozen, inputs, wrong):
    parity = _parity(wrong, frozen, inputs)
    assert parity.status == "missed"
    assert parity.reason.startswith("float16 hides it, but computed in float32: output: ")
    assert "the model's own float32 with float16 weights noise" in parity.reason


def test_a_right_file_is_right_in_float32_too(frozen, inputs, right):
    parity = _parity(right, frozen, inputs)
    assert parity.status == "passed"
    share = int(parity.reason.split("computed in float32, ")[1].split(" % of its limits")[0])
    assert 0 < share < 60


def test_a_file_that_overflows_is_told_that_float32_has_room(tmp_path):
    class Loud(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(8, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (1000 * self.head(x)) ** 2 / 1000

    torch.manual_seed(0)
    frozen, inputs = dkm.palettize(Loud(), 4), torch.randn(16, 8)
    file = dkm.convert(frozen, inputs[:1], tmp_path / "m.mlpackage")
    parity = _parity(file, frozen, inputs)
    assert parity.status == "missed"
    assert "computed in float32 it passes: compute_precision='float32'" in parity.reason


def test_a_file_that_cannot_be_run_in_float32_keeps_its_verdict(frozen, inputs, right, monkeypatch):
    def crash(*_: object, **__: object) -> None:
        raise RuntimeError("no such op")

    monkeypatch.setattr(float32_parity, "judge_of", crash)
    parity = _parity(right, frozen, inputs)
    assert parity.status == "passed"
    assert parity.reason.endswith("; not computed in float32: RuntimeError: no such op")


def test_convert_tries_in_float32_what_float16_hides(frozen, inputs, wrong):
    with pytest.raises(DiffersError, match="float32 with float16 weights noise"):
        tried(wrong.path, frozen, inputs, half_weights=True)
