"""What is asked of a file that was just written."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import dkm_deploy as dkm
from dkm_deploy.parity.rounding_noise import DRAWS, measure_noise
from dkm_deploy.parity.trial_run import DiffersError, trial_run

X = torch.randn(4, 32, generator=torch.Generator().manual_seed(1))


class _Parameter(nn.Module):
    """Gives a bias beside what it computes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(8)
        self.a, self.b = nn.Linear(32, 32), nn.Linear(32, 16)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.b(self.a(x)), self.b.bias


@pytest.fixture(scope="module")
def frozen():
    return dkm.palettize(_Parameter(), 4)


@pytest.fixture(scope="module")
def file(frozen, tmp_path_factory):
    """A file that gives the bias in float32, and stores it in float16 too, to compute with."""
    return dkm.convert(frozen, X, tmp_path_factory.mktemp("tried") / "m.mlpackage")


@pytest.fixture(autouse=True)
def never_close(monkeypatch):
    """Noise is measured even where outputs are so near that it need not be."""
    monkeypatch.setattr("dkm_deploy.parity.trial_run.is_close", lambda *_: False)


def test_a_parameter_may_be_given_as_it_is_where_it_is_stored_rounded_elsewhere(frozen, file):
    assert dkm.validate(file, reference=frozen, inputs=X)
    assert trial_run(file.path, frozen, X, half_weights=True) is None

    other = copy.deepcopy(frozen)
    other.b.bias.data += 1e-3
    with pytest.raises(DiffersError):
        trial_run(file.path, other, X, half_weights=True)


def test_a_file_is_refused_only_by_as_many_draws_as_a_validation_takes(frozen, file, monkeypatch):
    asked = []

    def measured(model, inputs, arithmetic, draws):
        asked.append(draws)
        noise = measure_noise(model, inputs, arithmetic, draws)
        if draws == DRAWS:
            return noise
        silent = {n: replace(own, level=0 * own.level) for n, own in noise.outputs.items()}
        return replace(noise, outputs=silent)

    monkeypatch.setattr("dkm_deploy.parity.trial_run.measure_noise", measured)

    assert trial_run(file.path, frozen, X, half_weights=True) is None
    assert asked[-2:] == [asked[0], DRAWS]  # the first is the look in float32
    assert asked[0] < DRAWS
