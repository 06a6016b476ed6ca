"""What parity says of a file that keeps state, from the outputs of its steps alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import dkm_deploy as dkm
from dkm_deploy.validation.check import Check
from dkm_deploy.validation.checks.state_steps import over_steps

PASSED, MISSED = Check("parity", "passed", "p"), Check("parity", "failed", "m")
NOT_RUN = Check("parity", "skipped", "n")
EXPECTED = {"y": np.arange(8.0).reshape(4, 2), "z": np.arange(2.0)}


def _steps(count):
    return dkm.Steps([torch.ones(1)] * count)


def _check(parity, inputs, states=(), actual=EXPECTED, expected=EXPECTED):
    def misses(outputs):
        assert {n: a.shape for n, a in outputs.items()} == {n: a.shape for n, a in actual.items()}
        return any(not np.array_equal(outputs[name], expected[name]) for name in expected)

    return over_steps(parity, inputs, states, (actual, expected), misses)


def test_a_pass_tells_over_how_many_steps():
    assert _check(PASSED, _steps(2), ["k"]) == Check("parity", "passed", "p; over 2 steps")


@pytest.mark.parametrize(("row", "step"), [(0, 1), (1, 1), (2, 2), (3, 2)])
def test_the_first_step_that_is_off_is_named(row, step):
    actual = {"y": EXPECTED["y"].copy(), "z": EXPECTED["z"]}
    actual["y"][row:] += 1
    found = _check(MISSED, _steps(2), actual=actual)
    assert found == Check("parity", "failed", f"m; first error at step {step} of 2")


def test_any_output_may_be_the_first_that_is_off():
    actual = {"y": EXPECTED["y"] + [[0], [0], [1], [1]], "z": EXPECTED["z"] + [1, 1]}
    assert _check(MISSED, _steps(2), actual=actual).reason == "m; first error at step 1 of 2"


def test_where_no_step_is_off_none_is_named():
    assert _check(MISSED, _steps(2)) == MISSED
    assert _check(NOT_RUN, _steps(2), ["k"]) == NOT_RUN


@pytest.mark.parametrize("inputs", [torch.ones(1), _steps(1)])
def test_one_step_of_a_file_with_state_proves_nothing(inputs):
    found = _check(PASSED, inputs, ["k", "v"])
    reason = "only the first step was run (p), and the file keeps k, v; "
    remedy = "give several, inputs=dkm.Steps([..])"
    assert found == Check("parity", "skipped", reason + remedy, blocks=True)
    five = _check(PASSED, inputs, list("abcde"))
    assert "keeps a, b, c, d, e; give" in five.reason
    assert "keeps a, b, c, d, e and 2 more; give" in _check(PASSED, inputs, "abcdefg").reason
    assert _check(PASSED, inputs) == PASSED
    assert _check(MISSED, inputs, ["k"]) == MISSED
