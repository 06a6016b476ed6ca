"""Right results pass the limits that a model's own noise sets, and wrong ones do not."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dkm_deploy.parity.reduced_precision import arithmetic
from dkm_deploy.parity.rounding_noise import measure_noise
from dkm_deploy.parity.slice_comparison import judge_outputs


class Scores(nn.Module):
    """A few scores of 16 numbers, (n, 16) to (n, count), and an operation after them."""

    def __init__(self, count: int, last: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.last = nn.Linear(16, 64), nn.Linear(64, count)
        self.after = last or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.last(functional.relu(self.first(x))))


class Steep(nn.Module):
    """An activation of some times what it is given."""

    def __init__(self, of: nn.Module, times: float = 60) -> None:
        super().__init__()
        self.of, self.times = of, times

    def forward(self, x: Tensor) -> Tensor:
        return self.of(self.times * x)


def nearest(model, x, actual, half=False):
    """How much of its limit the worst figure takes."""
    with torch.no_grad():
        expected = {"y": model(x).numpy()}
    noise = measure_noise(model, (x,), arithmetic(half, half))
    noise = type(noise)(noise.arithmetic, noise.samples, {"y": noise.outputs["output"]})
    precision = "float16" if half else "float32"
    return judge_outputs({"y": actual}, expected, noise, precision)["y"].figures[0].ratio


def samples(count, seed=0):
    return torch.randn(count, 16, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("last", [None, nn.ReLU(), Steep(nn.Sigmoid())], ids=str)
@pytest.mark.parametrize("count", [1, 2])
def test_right_values_of_samples_whose_noise_was_not_measured(count, last, half):
    model, x = Scores(count, last).eval(), samples(400)
    kind = torch.float16 if half else torch.float64
    with torch.no_grad():
        right = copy.deepcopy(model).to(kind)(x.to(kind)).float().numpy()
    assert nearest(model, x, right, half) <= 1


@pytest.mark.parametrize("wrong", [1.00003, -1.0])
def test_wrong_values_of_these_samples(wrong):
    model, x = Scores(1).eval(), samples(400)
    with torch.no_grad():
        actual = model(x).numpy()
    measured = measure_noise(model, (x,), arithmetic(False, False)).samples
    others = np.setdiff1d(np.arange(400), measured)
    actual[others] *= wrong
    assert nearest(model, x, actual) > 1


def test_small_answers_that_are_reversed_beside_one_that_is_huge():
    model, x = Scores(3).eval(), samples(100)
    x[50] *= 1e6
    with torch.no_grad():
        actual = model(x).numpy()
    actual[np.arange(100) != 50] *= -1
    assert nearest(model, x, actual, half=True) > 1


@pytest.mark.parametrize(
    "last", [Steep(nn.GELU(), 15), Steep(nn.LogSigmoid())], ids=["GELU", "LogSigmoid"]
)
def test_what_cancels_within_one_operation(last):
    """A lone value whose error is that of 1 + erf, or of a logarithm near 1, in float32."""
    model, x = Scores(1, last).eval(), samples(64)
    with torch.no_grad():
        z = last.times * model.last(functional.relu(model.first(x)))
        exact = copy.deepcopy(model).double()(x.double()).float().numpy()
        in_steps = torch.log(torch.sigmoid(z)).numpy()
    right = exact if isinstance(last.of, nn.GELU) else in_steps
    assert nearest(model, x, right) <= 1


@pytest.mark.parametrize(("gain", "passes"), [(1e-6, True), (4e-6, False)])
@pytest.mark.parametrize("kind", ["gain", "mean"])
def test_float32_has_room_for_libraries_that_approximate_in_their_own_way(kind, gain, passes):
    """Errors of all values alike do not average out; these are some 8 units in the last place."""
    model, x = Scores(256).eval(), samples(64)
    with torch.no_grad():
        right = model(x).double()
    size = right.square().mean(0).sqrt()
    wrong = right * (1 + gain) if kind == "gain" else right + gain * size
    assert (nearest(model, x, wrong.float().numpy()) <= 1) == passes
