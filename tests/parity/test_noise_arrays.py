"""The noise of a golden bundle: read as it was written, and refused where it is damaged."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.model.run import run_model
from dkm_deploy.parity.noise_arrays import from_arrays, to_arrays
from dkm_deploy.parity.reduced_precision import Arithmetic
from dkm_deploy.parity.rounding_noise import measure_noise

X = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return nn.Linear(8, 4).eval()


@pytest.fixture(scope="module")
def noise(model):
    return measure_noise(model, X, Arithmetic())


def _read(arrays, model):
    return from_arrays(arrays, "float32", run_model(model, X))


def test_it_is_read_as_it_was_written(model, noise):
    arrays = to_arrays(noise)

    again = to_arrays(_read(arrays, model))

    assert arrays.keys() == again.keys()
    assert all(np.array_equal(arrays[name], again[name]) for name in arrays)


NOT_FINITE = "is negative, NaN or infinite somewhere"
MISSING = "is missing or not of shape"
PLACES = "'samples' are not indices in ascending order"


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("output.level", lambda a: a * np.nan, NOT_FINITE),
        ("output.level", lambda a: a + np.inf, NOT_FINITE),
        ("output.level", lambda a: -1 - a, NOT_FINITE),
        ("output.level", lambda a: a > 0, MISSING),
        ("output.level", lambda a: a[:, :2], MISSING),
        ("output.gain.whole", lambda a: a + np.inf, NOT_FINITE),
        ("output.gain.whole", None, MISSING),
        ("output.offset.whole", lambda a: a[:0], MISSING),
        ("output.overflown", lambda a: a - 5, NOT_FINITE),
        ("output.overflown", lambda a: a[:0], MISSING),
        ("output.overflown", None, MISSING),
        ("samples", lambda a: a / 2, PLACES),
        ("samples", lambda a: a.reshape(3, 4), PLACES),
        ("samples", lambda a: a[::-1], PLACES),
    ],
)
def test_what_would_loosen_a_limit_is_refused(model, noise, key, change, message):
    arrays = to_arrays(noise)
    found = arrays.pop(key)
    if change:
        arrays[key] = change(found)

    with pytest.raises(dkm.DkmError, match=f"noise: .*{message}"):
        _read(arrays, model)


@pytest.mark.parametrize("places", [[], [0, 12], [-1, 3]])
def test_noise_of_samples_that_are_not_there_is_refused(model, noise, places):
    arrays = to_arrays(noise)
    level = arrays["output.level"][: len(places)]

    with pytest.raises(dkm.DkmError, match="names samples that do not exist"):
        _read(arrays | {"samples": np.array(places, np.int64), "output.level": level}, model)
