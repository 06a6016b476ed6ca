"""A model that keeps state is validated over steps: at each it must do as PyTorch does."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dkm_deploy as dkm
from dkm_deploy.model.run import run_model
from dkm_deploy.model.steps import unstack_steps
from dkm_deploy.validation.golden.bundle import SUMS, sha256


class Decoder(nn.Module):
    """Keys and values in buffers that a step writes by position: ``x (1, 1, 16)``."""

    def __init__(self, late: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v = (nn.Linear(16, 16) for _ in range(3))
        self.register_buffer("keys", torch.zeros(1, 4, 16))
        self.register_buffer("values", torch.zeros(1, 4, 16))
        self.late = late

    def forward(self, x: Tensor, pos: Tensor) -> Tensor:
        hit = (torch.arange(4) == pos)[None, :, None]
        self.keys.copy_(torch.where(hit, self.k(x), self.keys))
        self.values.copy_(torch.where(hit, self.v(x), self.values))
        y = (self.q(x) @ self.keys.transpose(1, 2)).softmax(-1) @ self.values
        return torch.where(pos > 1, self.late * y, y)


RECIPE = dkm.Recipe.uniform(4)
STEPS = dkm.Steps([(torch.randn(1, 1, 16), torch.tensor([i])) for i in range(3)])


@pytest.fixture(scope="module")
def frozen():
    return dkm.palettize(Decoder().eval(), RECIPE)


@pytest.fixture(scope="module")
def package(frozen, tmp_path_factory):
    path = tmp_path_factory.mktemp("stateful") / "net.mlpackage"
    artifact = dkm.convert(frozen, STEPS.steps[0], path)
    assert "this state between runs, in float16 and zero at the start: keys" in artifact.notes[-1]
    return path


@pytest.fixture(scope="module")
def golden(frozen, tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden") / "bundle"
    dkm.write_golden(folder, reference=frozen, inputs=STEPS, original=Decoder())
    return folder


def _parity(report):
    (check,) = [c for c in report.files[0].checks if c.name == "parity"]
    return check


def test_every_step_is_compared(frozen, package):
    report = dkm.validate([package], reference=frozen, inputs=STEPS)
    assert report
    assert "; over 3 steps; computed in float32, " in _parity(report).reason
    assert report.samples == 3


@pytest.mark.parametrize("inputs", [STEPS.steps[0], dkm.Steps(STEPS.steps[:1])])
def test_the_first_step_alone_proves_nothing(frozen, package, inputs):
    report = dkm.validate([package], reference=frozen, inputs=inputs)
    check = _parity(report)
    assert not report
    assert check.status == "skipped"
    assert "and the file keeps keys, values; give several, inputs=dkm.Steps([..])" in check.reason


def test_the_step_at_which_a_file_parts_is_named(package):
    other = dkm.palettize(Decoder(late=1.1).eval(), RECIPE)
    assert dkm.validate([package], reference=other, inputs=dkm.Steps(STEPS.steps[:2]))
    report = dkm.validate([package], reference=other, inputs=STEPS)
    assert "; first error at step 3 of 3; not located:" in _parity(report).reason


def test_a_file_that_forgets_is_found_out(package, frozen, monkeypatch):
    run = dkm.MLProgramEvaluator.run
    monkeypatch.setattr(
        dkm.MLProgramEvaluator, "run", lambda self, inputs, state=None: run(self, inputs)
    )
    report = dkm.validate([package], reference=frozen, inputs=STEPS)
    assert "; first error at step 2 of 3" in _parity(report).reason


def test_a_model_with_state_starts_from_its_own_buffers_in_every_block():
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            self.mean.lerp_(x.mean(), 0.5)
            return x + self.mean

    model, x = Mean(), torch.randn(4, 3)
    alone = run_model(model, x, block=2)["output"]
    expected = torch.stack([row + (1 + row.mean()) / 2 for row in x])
    np.testing.assert_allclose(alone, expected, rtol=1e-6)
    stepped = run_model(model, dkm.Steps([x[:1], x[1:2]]))["output"]
    mean = ((1 + x[0].mean()) / 2 + x[1].mean()) / 2
    np.testing.assert_allclose(stepped, torch.stack([expected[0], x[1] + mean]), rtol=1e-6)
    assert model.mean == 1


def test_outputs_of_a_step_are_not_overwritten_by_the_next():
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.total += x
            return self.total

    found = run_model(Sum(), dkm.Steps([torch.ones(1)] * 3))["output"]
    assert found.tolist() == [1, 2, 3]


class TestGolden:
    def test_it_is_replayed_step_by_step(self, golden, package):
        report = dkm.validate_golden([package], golden)
        assert report
        assert "; over 3 steps; computed in float32, " in _parity(report).reason

    def test_each_tensor_has_the_step_as_first_dimension(self, golden):
        manifest = json.loads((golden / "bundle.json").read_text())
        assert manifest["steps"] == 3
        shapes = {e["name"]: e["shape"] for g in ("inputs", "outputs") for e in manifest[g]}
        assert shapes == {"x": [3, 1, 1, 16], "pos": [3, 1], "output": [3, 1, 1, 16]}
        raw = np.fromfile(golden / "raw/inputs.0.bin", "<f4").reshape(3, 1, 1, 16)
        np.testing.assert_array_equal(raw[1], STEPS.steps[1][0])

    def test_what_a_device_gave_is_judged_step_by_step(self, golden, tmp_path):
        outputs = np.fromfile(golden / "raw/outputs.0.bin", "<f4").reshape(3, 1, 1, 16)
        outputs[1] *= 2
        outputs.tofile(tmp_path / "output.bin")
        entry = {"name": "output", "dtype": "float32", "shape": [3, 1, 1, 16], "raw": "output.bin"}
        told = {
            "format": "dkm-deploy device outputs",
            "version": 1,
            "golden": sha256(golden / SUMS),
            "runtime": "a phone",
            "outputs": [entry],
        }
        (tmp_path / "outputs.json").write_text(json.dumps(told))
        assert (
            "; first error at step 2 of 3"
            in _parity(dkm.validate_device_outputs([tmp_path], golden)).reason
        )

    def test_a_number_of_steps_that_is_not_theirs_is_damage(self, golden, tmp_path):
        folder = shutil.copytree(golden, tmp_path / "bundle")
        text = (folder / "bundle.json").read_text()
        (folder / "bundle.json").write_text(text.replace('"steps": 3', '"steps": 2'))
        sums = (folder / SUMS).read_text()
        old, new = (sha256(f / "bundle.json") for f in (golden, folder))
        (folder / SUMS).write_text(sums.replace(old, new))
        with pytest.raises(dkm.DkmError, match="it has 3 steps, but its manifest says 2"):
            dkm.validate_golden([], folder)

    def test_steps_of_other_shapes_are_refused(self, tmp_path):
        steps = dkm.Steps([torch.ones(1, 4), torch.ones(2, 4)])
        model = dkm.palettize(nn.Linear(4, 4), dkm.Recipe.uniform(2))
        with pytest.raises(dkm.DkmError, match="step 2 has inputs of other shapes than step 1"):
            dkm.write_golden(tmp_path / "bundle", reference=model, inputs=steps)


class TestBadInput:
    @pytest.mark.parametrize("steps", [[], torch.ones(3, 1), {"x": torch.ones(1)}])
    def test_steps_that_are_no_list(self, steps):
        with pytest.raises(dkm.DkmError, match="a list with the inputs of each step: dkm"):
            dkm.Steps(steps)

    def test_outputs_of_other_shapes(self):
        steps = dkm.Steps([torch.ones(1, 4), torch.ones(2, 4)])
        with pytest.raises(dkm.DkmError, match=r"'output' has shape \(1, 4\) in the first step"):
            run_model(nn.Linear(4, 4), steps)

    def test_tensors_with_other_numbers_of_steps(self):
        with pytest.raises(dkm.DkmError, match=r"the inputs have \[2, 3\] steps"):
            unstack_steps({"x": torch.ones(2, 1), "y": torch.ones(3)})
