"""Which noise a file is judged by: a bundle's, or the model's own with the file's weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.model.metric import accuracy
from dkm_deploy.model.run import run_model
from dkm_deploy.parity.mean_difference import GainAndOffset
from dkm_deploy.parity.reduced_precision import Arithmetic
from dkm_deploy.parity.rounding_noise import DRAWS, Noise, OutputNoise
from dkm_deploy.validation.checks import model_noise
from dkm_deploy.validation.checks.model_noise import judge_of
from dkm_deploy.validation.task import Task

FLOAT32, HALF_WEIGHTS = Arithmetic(), Arithmetic("float32", "float16")
X = torch.eye(4)
LEVEL = np.full((4, 3), 0.5, np.float32)


def _noise(arithmetic):
    return Noise(arithmetic, np.arange(4), {"output": OutputNoise(LEVEL, GainAndOffset({}, {}))})


def _task(model=None, **noise):
    reference = {"output": LEVEL} if model is None else run_model(model, X)
    return Task(X, reference, None, None, accuracy, dkm.Limits(), {}, model, **noise)


class TestWithoutAModel:
    """All that is known is what the task tells."""

    TASK = _task(noise={HALF_WEIGHTS: _noise(HALF_WEIGHTS)})

    def judge(self, path, arithmetic, **how):
        return judge_of(path, arithmetic, {"output": LEVEL}, self.TASK, **how)

    def test_the_noise_of_the_same_arithmetic_is_taken(self, tmp_path):
        found = self.judge(tmp_path, HALF_WEIGHTS)
        assert found.noise is self.TASK.noise[HALF_WEIGHTS]
        assert found.expected is self.TASK.reference
        assert found.precision == "float16"

    def test_of_another_one_none_is_known(self, tmp_path):
        for half_sums in (False, True):
            found = self.judge(tmp_path, FLOAT32, half_sums=half_sums)
            assert (found.noise, found.precision) == (None, "float32")

    def test_sums_in_float16_are_louder(self, tmp_path):
        found = self.judge(tmp_path, HALF_WEIGHTS, half_sums=True)
        assert (found.noise.outputs["output"].level == 4 * LEVEL).all()


class TestWithAModel:
    @pytest.fixture
    def measured(self, monkeypatch):
        """What noise was measured of: model, inputs, arithmetic and draws."""
        asked = []

        def measure(*given):
            asked.append(given)
            return _noise(given[2])

        monkeypatch.setattr(model_noise, "measure_noise", measure)
        return asked

    @pytest.fixture
    def model(self):
        torch.manual_seed(0)
        return nn.Linear(4, 3).eval()

    @pytest.fixture
    def path(self, tmp_path, model):
        """A file that holds the weight in float16."""
        (tmp_path / "m.x").write_bytes(model.weight.detach().half().numpy().tobytes())
        return tmp_path / "m.x"

    def test_noise_is_measured_as_often_as_it_is_asked_for(self, measured, model, path):
        task = _task(model, noise={FLOAT32: None})
        found = judge_of(path, FLOAT32, task.reference, task)
        judge_of(path, FLOAT32, task.reference, task, draws=3)
        assert measured == [(model, X, FLOAT32, DRAWS), (model, X, FLOAT32, 3)]
        assert found.expected is task.reference
        assert found.noise.arithmetic == FLOAT32

    def test_weights_that_a_file_rounds_are_rounded_first(self, measured, model, path):
        task = _task(model)
        off = {"output": task.reference["output"] + 1}
        found = judge_of(path, HALF_WEIGHTS, off, task)
        ((rounded, *_),) = measured
        assert torch.equal(rounded.weight, model.weight.half().float())
        np.testing.assert_array_equal(found.expected["output"], run_model(rounded, X)["output"])
        exact = judge_of(path, HALF_WEIGHTS, task.reference, task)
        assert exact.expected["output"] is task.reference["output"]
