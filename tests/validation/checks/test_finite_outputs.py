"""Outputs that nothing can be compared with, and the inputs to blame."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import dkm_deploy as dkm
from dkm_deploy.validation.checks.finite_outputs import check_finite, uncompared_text

NAN = torch.tensor([[1.0, torch.nan]])
GOOD = torch.ones(1, 2)
NONE = "the reference gives no finite value in output 'y', so no file can be compared with it"


@pytest.mark.parametrize(
    ("inputs", "blamed"),
    [
        (GOOD, ""),
        (NAN, ": input 0 holds NaN or infinity"),
        ((GOOD, NAN.log()), ": input 1 holds NaN or infinity"),
        ({"x": NAN, "z": GOOD, "w": [GOOD, NAN / 0]}, ": input x, w holds NaN or infinity"),
        (dkm.Steps([{"x": NAN}, {"x": NAN}]), ": input x holds NaN or infinity"),
        (dkm.Steps([{"x": GOOD}, {"x": NAN}]), ": input x holds NaN or infinity"),
        (dkm.Steps([{"x": GOOD}]), ""),
    ],
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_output_without_a_finite_value_is_refused(inputs, blamed, value):
    with pytest.raises(dkm.DkmError) as caught:
        check_finite({"x": np.ones(2), "y": np.full((1, 2), value)}, inputs)
    assert str(caught.value) == NONE + blamed


def test_one_finite_value_is_enough_and_of_nothing_there_is_none():
    check_finite({"y": np.array([np.nan, 1]), "empty": np.zeros((0, 2))}, NAN)


def test_values_that_are_not_compared_are_counted():
    assert uncompared_text({"y": np.ones(2)}) == ""
    outputs = {"y": np.array([np.nan, 1, np.inf]), "z": np.full(1997, np.nan)}
    told = "; NaN or infinite in PyTorch too, and so not compared: 1,999 of 2,000"
    assert uncompared_text(outputs) == told
