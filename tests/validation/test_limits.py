from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from dkm_deploy import DkmError, Limits, OutputLimits
from dkm_deploy.parity.judge import judged as against
from dkm_deploy.validation.checks import parity_check
from dkm_deploy.validation.limits import limits_from, limits_of, parse_output_limits
from dkm_deploy.validation.metrics import errors

EXPECTED = np.linspace(-1, 1, 1001)
NOISY = EXPECTED + 1e-3 * np.sign(np.sin(7 * np.arange(1001)))


def judged(limits: Limits, actual=NOISY, expected=EXPECTED, half=True):
    precision = "float16" if half else "float32"
    own = against({"y": actual}, {"y": expected}, None, precision)
    return parity_check({"y": errors(actual, expected)}, "", True, limits, own)


@pytest.mark.parametrize(("half", "relative"), [(False, "1.00e-04"), (True, "1.00e-02")])
def test_without_a_model_constants_follow_the_precision(half, relative):
    assert limits_of("y", Limits()) == OutputLimits()
    check = judged(Limits(max_element_error=1), half=half)
    assert check.status == ("passed" if half else "missed")
    assert f"x a constant for float{16 if half else 32}, as nothing here" in check.reason


def test_an_outputs_own_limits_come_first():
    limits = Limits(
        max_relative_error=0.5,
        outputs={"y": OutputLimits(max_relative_error=1e-3, max_element_error=2)},
    )
    own, other = limits_of("y", limits), limits_of("z", limits)
    assert (own.max_relative_error, own.max_element_error) == (1e-3, 2)
    assert (other.max_relative_error, other.max_element_error) == (0.5, 5)
    assert judged(limits).status == "missed"


@pytest.mark.parametrize(
    ("key", "kept", "missed"),
    [
        ("max_relative_error", 2e-3, 1e-3),
        ("max_element_error", 2e-3, 1e-3),
        ("max_abs_error", 1.1e-3, 0.9e-3),
        ("max_mean_error", 1.1e-3, 0.9e-3),
        ("max_p999_error", 1.1e-3, 0.9e-3),
        ("min_sqnr_db", 55, 56),
        ("min_psnr_db", 59, 61),
        ("min_cosine", 0.99999, 0.9999999),
    ],
)
def test_each_limit_of_an_output_is_kept_and_missed(key, kept, missed):
    assert judged(Limits(outputs={"y": OutputLimits(**{key: kept})})).status == "passed"
    check = judged(Limits(outputs={"y": OutputLimits(**{key: missed})}))
    assert check.status == "missed"
    assert check.reason.startswith("y: ")
    assert check.reason.count("limit") == 1


def test_one_wild_element_is_not_averaged_away():
    actual = np.tile(EXPECTED, 1000)
    expected = actual.copy()
    actual[5] += 1.0
    check = judged(Limits(), actual, expected)
    assert check.status == "missed"
    assert "error of element (5) 1.00e+00" in check.reason


def test_an_exact_output_keeps_every_limit():
    limits = OutputLimits(0, 0, 0, 0, 0, min_sqnr_db=200, min_psnr_db=200, min_cosine=0.999999)
    assert judged(Limits(outputs={"y": limits}), EXPECTED, EXPECTED).status == "passed"


def test_nothing_finite_to_compare_with_is_not_a_pass():
    nothing = np.full(3, np.nan)
    check = judged(Limits(), nothing, nothing)
    assert (check.status, check.reason) == (
        "not run",
        "y: PyTorch gives no finite value to compare with",
    )
    assert judged(Limits(), nothing, np.ones(3)).reason == "y: 3 NaN or infinite"


def test_limits_come_back_from_their_json():
    limits = Limits(max_bytes=10, outputs={"y": OutputLimits(min_cosine=0.9)})
    assert limits_from(json.loads(json.dumps(asdict(limits)))) == limits


def test_limits_are_read_from_the_command_line():
    found = parse_output_limits(
        ["a:b:min_cosine=0.9", "y:max_abs_error=1e-3", "a:b:max_p999_error=1"]
    )
    assert found == {
        "a:b": OutputLimits(min_cosine=0.9, max_p999_error=1),
        "y": OutputLimits(max_abs_error=1e-3),
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("y:min_cosine", "NAME:LIMIT=VALUE"),
        ("min_cosine=1", "NAME:LIMIT=VALUE"),
        ("y:min_cosine=much", "'much' is not a number"),
        ("y:cosine=1", "y: no limit is called 'cosine'; there are max_relative_error"),
    ],
)
def test_lines_that_are_no_limits(line, message):
    with pytest.raises(DkmError, match=message):
        parse_output_limits([line])


@pytest.mark.parametrize(
    "values", [{"max_bytes": "10"}, {"novel": 1}, {"outputs": [1]}, {"outputs": {"y": 3}}]
)
def test_json_that_is_no_limits(values):
    with pytest.raises(DkmError):
        limits_from(values)
