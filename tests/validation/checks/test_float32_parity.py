"""Faults too small for float16, which the same file computed in float32 shows."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.model.metric import accuracy
from dkm_deploy.parity.figures import Figure, OutputJudgement
from dkm_deploy.parity.reduced_precision import Arithmetic
from dkm_deploy.parity.trial_run import DiffersError, trial_run
from dkm_deploy.validation.check import Check
from dkm_deploy.validation.checks import float32_parity
from dkm_deploy.validation.checks.float32_parity import with_float32
from dkm_deploy.validation.task import Task


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


def test_what_float16_hides_fails_in_float32(frozen, inputs, wrong):
    parity = _parity(wrong, frozen, inputs)
    assert parity.status == "failed"
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
    options = {"compute_precision": "float16"}
    file = dkm.convert(frozen, inputs[:1], tmp_path / "m.mlpackage", **options)
    parity = _parity(file, frozen, inputs)
    assert parity.status == "failed"
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
        trial_run(wrong.path, frozen, inputs, half_weights=True)


class TestByArraysAlone:
    """A file that gives 1 everywhere, judged by limits that the test sets."""

    PASSED, MISSED = Check("parity", "passed", "p"), Check("parity", "failed", "m")
    TASK = Task(
        *(np.ones((2, 3), np.float32), {"y": np.ones((2, 3), np.float32)}, None, None),
        *(accuracy, dkm.Limits(), {}),
    )
    OFF = "y: relative error 0.00e+00: gain 2.00e+00, limit 1.00e+00 (1 x noise)"

    @pytest.fixture
    def judged(self, monkeypatch):
        """The check where a file takes these shares of its limits."""

        def check(parity, *shares, run=lambda inputs: {"z": inputs["x"]}, task=self.TASK):
            session = SimpleNamespace(input_shapes={"x": (None, 3)}, run=run)
            runtime = SimpleNamespace(load_in_float32=lambda path: session)
            self.asked, left = [], iter(shares)

            def judge_of(*given, draws):
                self.asked.append((*given, draws))
                figures = (Figure("gain", next(left), 1.0, 1.0), Figure("mean error", 0, 1.0, 1.0))
                return lambda outputs: {"y": OutputJudgement(figures, 0.1, "noise")}

            monkeypatch.setattr(float32_parity, "float32_runtime", {Path("m.x"): runtime}.get)
            monkeypatch.setattr(float32_parity, "judge_of", judge_of)
            return with_float32(parity, Path("m.x"), task)

        return check

    def test_a_pass_tells_how_much_of_its_limits_it_takes(self, judged):
        for shares, told in (((0.5,), 50), ((2, 0.8), 80)):
            found = judged(self.PASSED, *shares)
            reason = f"p; computed in float32, {told} % of its limits"
            assert found == Check("parity", "passed", reason)

    def test_few_draws_come_first(self, judged):
        judged(self.PASSED, 2, 0.8)
        assert [given[-1] for given in self.asked] == [4, 8]
        path, arithmetic, outputs, task, _ = self.asked[0]
        assert (path, arithmetic) == (Path("m.x"), Arithmetic("float32", "float16"))
        assert task is self.TASK
        assert outputs["y"].tolist() == [[1, 1, 1]] * 2

    def test_a_miss_in_float16_alone_has_a_remedy(self, judged):
        told = "computed in float32 it passes: compute_precision='float32' keeps what float16 loses"
        assert judged(self.MISSED, 0.5) == Check("parity", "failed", f"m; {told}")
        assert judged(self.MISSED, 2, 2) == self.MISSED

    def test_what_float16_hides_is_told(self, judged):
        reason = f"float16 hides it, but computed in float32: {self.OFF}"
        assert judged(self.PASSED, 2, 2) == Check("parity", "failed", reason)

    def test_chance_is_told_first(self, judged):
        runs = count()
        found = judged(self.PASSED, 2, 2, run=lambda inputs: {"z": inputs["x"] + next(runs)})
        told = "the file gives other outputs on a second run: it is random"
        reason = f"float16 hides it, but computed in float32: {told}; {self.OFF}"
        assert found == Check("parity", "failed", reason)

    def test_where_nothing_can_be_compared_in_float32_the_verdict_stays(self, judged):
        nothing = {"y": np.full((2, 3), np.nan, np.float32)}
        how = {"run": lambda inputs: nothing, "task": replace(self.TASK, reference=nothing)}
        assert judged(self.PASSED, 0, 0, **how) == self.PASSED

    def test_without_a_runtime_or_with_one_that_fails_the_verdict_stays(self, judged, monkeypatch):
        def fails(inputs):
            raise KeyError("op")

        found = judged(self.MISSED, run=fails)
        reason = "m; not computed in float32: KeyError: 'op'"
        assert found == Check("parity", "failed", reason)
        assert with_float32(self.PASSED, Path("other.x"), self.TASK) == self.PASSED
