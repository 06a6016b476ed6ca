"""Constants that decide: kept, or told of in float16, and never taken for others."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from tests.converters.coreml.programs import operations

X = torch.randn(4, 16, generator=torch.Generator().manual_seed(0)).abs()
X[2] = 0  # a padded row


class Guards(nn.Module):
    """What keeps a sum from zero, or makes small or large numbers of others."""

    def forward(self, x):
        zero = x.new_zeros(4, 160)
        return {
            "mean": x / (x.sum(-1, keepdim=True) + 1e-12),
            "norm": x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-8),
            "unit": nn.functional.normalize(x, dim=-1),
            "log": torch.log(x + 1e-12),
            "small": x * 1e-8,
            "back": x * 1e-8 * 1e8,
            "divided": x / 1e6,
            "given": x,
            "table": zero + torch.full((160,), 3e-13),
        }


class Likely(nn.Module):
    """What coremltools takes for GELU and for a mean, with and without reason."""

    def forward(self, x):
        return {
            "gelu": x * 0.5 * (1 + torch.erf(x / math.sqrt(2))),
            "no_gelu": x * 0.5 * (1 + torch.erf(x / 1.4147)),
            "mean": x.sum(-1) / 16,
            "no_mean": x.sum(-1) / 16.005,
        }


def run(model, path, **options):
    """Outputs of the package, those of PyTorch, and the notes."""
    artifact = dkm.convert(model.eval(), X, path, **options)
    return dkm.MLProgramEvaluator(path).run({"x": X.numpy()}), model(X), artifact.notes


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_small_constants(tmp_path, precision):
    found, expected, notes = run(Guards(), tmp_path / "m.mlpackage", compute_precision=precision)
    single = precision == "float32"
    for name, value in expected.items():
        assert np.allclose(found[name], value, rtol=1e-6 if single else 4e-3, atol=0), name
    if single:
        assert notes == ()
    else:
        (note,) = notes
        assert note == (
            "2 constants are too small for float16 and are stored as 5.96e-08: "
            "1e-12 (add, maximum), 1e-08 (add); compute_precision='float32' keeps them"
        )
    assert np.array_equal(found["given"], X.numpy())


def test_a_constant_is_taken_for_another_only_if_it_is_that(tmp_path):
    path = tmp_path / "m.mlpackage"
    found, expected, _ = run(Likely(), path, compute_precision="float32")
    made = operations(path)
    assert (made["gelu"], made["erf"], made["reduce_mean"], made["reduce_sum"]) == (1, 1, 1, 1)
    for name, value in expected.items():
        assert np.allclose(found[name], value, rtol=1e-6, atol=1e-7), name


class Masked(nn.Module):
    """Rows of scores of which some or all are masked by the lowest number there is."""

    def forward(self, x):
        lowest = torch.finfo(x.dtype).min
        hidden = (x < 0.7).to(x.dtype)
        return {
            "added": (x + hidden * lowest).softmax(-1),
            "chosen": (x + torch.where(x > 0.7, 0.0, lowest)).softmax(-1),
            "filled": x.masked_fill(x < 0.7, lowest).softmax(-1),
            "infinite": x.masked_fill(x < 0.2, -math.inf)[0].softmax(-1),
        }


def test_the_lowest_number_of_a_mask_stays_finite_in_float16(tmp_path):
    found, expected, _ = run(Masked(), tmp_path / "m.mlpackage", compute_precision="float16")
    for name, value in expected.items():
        assert np.allclose(found[name], value, rtol=2e-3, atol=1e-4), name


def test_an_epsilon_that_float16_lacks_stays_as_it_is(tmp_path):
    model, path = nn.Sequential(nn.LayerNorm(16, eps=1e-12)), tmp_path / "m.mlpackage"
    small = X[:2] / 4000
    made = dkm.convert(model, small, path, minimum_deployment_target="iOS17")
    (name,) = (each.name for each in made.interface.inputs)
    (found,) = dkm.MLProgramEvaluator(path).run({name: small.numpy()}).values()
    assert np.allclose(found, model(small).detach(), rtol=0.02, atol=0.02)
    assert made.notes == ()
