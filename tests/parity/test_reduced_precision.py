"""Rounding in another arithmetic: of which numbers, how far, and what is left alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dkm_deploy.parity.reduced_precision import Arithmetic, arithmetic, emulate, stochastic_round
from dkm_deploy.parity.rounding_noise import measure_noise

HALF = Arithmetic("float16", "float16")
STORED_HALF = Arithmetic("float32", "float16")

_finite = st.floats(-65504, 65504, width=32)


def _neighbours(value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The float16 numbers on both sides, as float32."""
    near = value.half()
    step = torch.tensor(float("inf") if near.float() < value else -float("inf")).half()
    other = near if near.float() == value else torch.nextafter(near, step)
    return near.float(), other.float()


@settings(max_examples=60, deadline=None)
@given(_finite, st.integers(0, 7))
def test_a_value_becomes_one_of_its_float16_neighbours(value, draw):
    exact = torch.tensor(value)
    assert stochastic_round(exact, "float16", draw) in _neighbours(exact)


def test_rounding_is_the_value_itself_in_the_mean():
    exact = torch.linspace(1.0, 1.01, 4001)
    errors = torch.stack([stochastic_round(exact, "float16", draw) - exact for draw in range(64)])
    assert errors.abs().max() <= 2**-10
    assert abs(float(errors.mean())) < 2**-10 / 100


def test_float16_has_no_room_beyond_its_largest_number():
    exact = torch.tensor([65504.0, 65519.9, 65520.0, -70000.0, float("inf"), float("nan")])
    found = stochastic_round(exact, "float16", 0, overflows=True)
    assert found[:5].tolist() == [65504, 65504, float("inf"), -float("inf"), float("inf")]
    assert found[5].isnan()


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_what_the_precision_has_is_left_alone(precision):
    exact = torch.tensor([0.0, -0.0, 1.0, 0.5, -3.25, 2.0**-14, 2.0**-24])
    for draw in range(4):
        found = stochastic_round(exact, precision, draw)
        assert torch.equal(found, exact)


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_the_largest_float32_stays_finite(precision):
    exact = torch.tensor([1.0, -1.0]) * torch.finfo(torch.float32).max
    for draw in range(8):
        found = stochastic_round(exact, precision, draw)
        assert torch.allclose(found, exact, rtol=2**-10)


def test_float32_loses_its_last_three_bits():
    exact = 1 + torch.arange(64) * 2.0**-23
    for draw in range(4):
        steps = (stochastic_round(exact, "float32", draw) - 1) * 2.0**20
        assert torch.equal(steps, steps.round())


def _run(model, inputs, numbers, draw=0):
    with emulate(numbers, draw, inputs):
        return model(inputs)


class _Scalar(nn.Module):
    def __init__(self, call) -> None:
        super().__init__()
        self.call = call

    def forward(self, x):
        return self.call(x)


SCALARS = {
    "a factor": (lambda x: x * 0.1, 0.1),
    "a divisor, which files multiply with": (lambda x: x / 10.0, 0.1),
    "a whole divisor": (lambda x: x / 10, 0.1),
    "a slope": (lambda x: nn.functional.leaky_relu(-x, 0.1), -0.1),
}


@pytest.mark.parametrize("name", SCALARS)
def test_numbers_of_the_program_are_rounded_as_a_file_stores_them(name):
    call, factor = SCALARS[name]
    near = {float(n) * (1 if factor > 0 else -1) for n in _neighbours(torch.tensor(abs(factor)))}
    x = torch.tensor([1.0])
    seen = {round(float(_run(_Scalar(call), x, STORED_HALF, draw)), 7) for draw in range(8)}
    assert seen == {round(value, 7) for value in near}


NORMS = {
    "layer": nn.LayerNorm(8, eps=1e-5),
    "batch": nn.BatchNorm1d(8, eps=1e-5).eval(),
    "group": nn.GroupNorm(2, 8, eps=1e-5),
}


@pytest.mark.parametrize("name", NORMS)
def test_the_epsilon_of_a_normalization_is_rounded(name):
    norm, x = NORMS[name], 1e-3 * torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    if name == "batch":
        norm.running_var.fill_(1e-6)
    plain = norm(x).detach()
    off = max(float((_run(norm, x, STORED_HALF, n) / plain - 1).abs().max()) for n in range(8))
    assert 1e-4 < off < 1e-2


@pytest.mark.parametrize("affine", [True, False])
def test_what_a_group_norm_divides_by_is_rounded_for_all_values_of_a_group(affine):
    """Files divide in an operation of its own: one rounding of the deviation moves the group."""
    torch.manual_seed(0)
    norm, x = nn.GroupNorm(2, 4, affine=affine), 3.3 * torch.randn(1, 4, 40, 50)
    plain = norm(x).detach()
    groups = plain.reshape(2, -1)
    gains = torch.tensor(
        [
            ((_run(norm, x, HALF, draw).reshape(2, -1) - groups) * groups).mean(1).tolist()
            for draw in range(8)
        ]
    ).div(groups.square().mean(1))
    assert gains.abs().max() < 2**-10
    # Rounding each of 4,000 values alone would leave 2**-12 / 4000**0.5 of them.
    assert (gains.square().mean(0).sqrt() > 2**-13).all()
    exact = _run(norm, x, Arithmetic("float32", "float32"), 0)
    assert torch.allclose(exact, plain, atol=1e-5)


def test_nothing_of_the_model_is_changed():
    torch.manual_seed(0)
    model, x = (
        nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU()).eval(),
        torch.randn(3, 4),
    )
    before = {name: t.clone() for name, t in model.state_dict().items()}
    plain, kept = model(x), x.clone()
    assert not torch.equal(_run(model, x, HALF), plain)
    assert torch.equal(x, kept)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert torch.equal(model(x), plain)


@pytest.mark.parametrize(
    ("half", "weights", "told"),
    [
        (True, True, "float16"),
        (True, False, "float16"),
        (False, True, "float32 with float16 weights"),
        (False, False, "float32"),
    ],
)
def test_the_arithmetic_of_a_file(half, weights, told):
    found = arithmetic(half, weights)
    assert str(found) == told
    assert found.coarsest == ("float32" if told == "float32" else "float16")


@pytest.mark.parametrize("draw", range(4))
def test_without_overflow_large_numbers_have_float16s_digits(draw):
    exact = torch.tensor([1e5, -3.3e7, 1e30])
    found = stochastic_round(exact, "float16", draw)
    assert found.isfinite().all()
    assert ((found - exact).abs() < exact.abs() * 2.0**-10).all()
    assert (found * 2.0 ** -found.abs().log2().floor() * 2**10 % 1 == 0).all()


class Normalized(nn.Module):
    """Divides by the norm, whose squares overflow for large inputs."""

    def forward(self, x):
        return x / x.square().sum(1, keepdim=True).sqrt()


@pytest.mark.parametrize(("size", "overflown"), [(1, 0), (1000, 32)])
def test_overflow_is_counted_and_is_no_noise(size, overflown):
    x = size * torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    noise = measure_noise(Normalized(), x, Arithmetic("float16", "float16")).outputs["output"]
    assert noise.overflown == overflown
    assert noise.level.max() < 1e-3
