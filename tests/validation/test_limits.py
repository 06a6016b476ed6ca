from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from dkm_deploy import DkmError, Limits, OutputLimits
from dkm_deploy._support.records import from_plain
from dkm_deploy.parity.output_errors import errors
from dkm_deploy.parity.slice_comparison import judge_outputs as against
from dkm_deploy.validation.checks.output_checks import parity_check
from dkm_deploy.validation.limits import (
    check_names,
    limits_of,
    merge_limits,
    parse_output_limits,
)

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
    assert check.status == ("passed" if half else "failed")
    assert (
        f"x a constant for float{16 if half else 32}, as the model's noise is not" in check.reason
    )


def test_an_outputs_own_limits_come_first():
    limits = Limits(
        max_relative_error=0.5,
        outputs={"y": OutputLimits(max_relative_error=1e-3, max_element_error=2)},
    )
    own, other = limits_of("y", limits), limits_of("z", limits)
    assert (own.max_relative_error, own.max_element_error) == (1e-3, 2)
    assert (other.max_relative_error, other.max_element_error) == (0.5, 5)
    assert judged(limits).status == "failed"


@pytest.mark.parametrize(
    ("key", "kept", "failed"),
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
def test_each_limit_of_an_output_is_kept_and_failed(key, kept, failed):
    assert judged(Limits(outputs={"y": OutputLimits(**{key: kept})})).status == "passed"
    check = judged(Limits(outputs={"y": OutputLimits(**{key: failed})}))
    assert check.status == "failed"
    assert check.reason.startswith("y: ")
    assert check.reason.count("limit") == 1


def test_one_wild_element_is_not_averaged_away():
    actual = np.tile(EXPECTED, 1000)
    expected = actual.copy()
    actual[5] += 1.0
    check = judged(Limits(), actual, expected)
    assert check.status == "failed"
    assert "error of element (5) 1.00e+00" in check.reason


def test_an_exact_output_keeps_every_limit():
    limits = OutputLimits(0, 0, 0, 0, 0, min_sqnr_db=200, min_psnr_db=200, min_cosine=0.999999)
    assert judged(Limits(outputs={"y": limits}), EXPECTED, EXPECTED).status == "passed"


def test_nothing_finite_to_compare_with_is_not_a_pass():
    nothing = np.full(3, np.nan)
    check = judged(Limits(), nothing, nothing)
    assert (check.status, check.reason) == (
        "skipped",
        "y: PyTorch gives no finite value to compare with",
    )
    assert judged(Limits(), nothing, np.ones(3)).reason == "y: 3 NaN or infinite"


def test_limits_come_back_from_their_json():
    limits = Limits(max_bytes=10, outputs={"y": OutputLimits(min_cosine=0.9)})
    assert from_plain(json.loads(json.dumps(asdict(limits))), Limits) == limits


def test_limits_are_read_from_the_command_line():
    found = parse_output_limits(
        ["a:b:min_cosine=0.9", "y:max_abs_error=1e-3", "a:b:max_p999_error=1"]
    )
    assert found == {
        "a:b": OutputLimits(min_cosine=0.9, max_p999_error=1),
        "y": OutputLimits(max_abs_error=1e-3),
    }


KNOWN = (
    "max_relative_error, max_element_error, max_abs_error, max_mean_error, max_p999_error, "
    "min_sqnr_db, min_psnr_db, min_cosine"
)
KNOWN_OF_FILES = (
    "max_relative_error, max_element_error, max_metric_loss, min_agreement, max_bytes, "
    "max_size_ratio, max_latency_ratio, max_load_ratio, max_peak_ratio, outputs"
)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("y:min_cosine", "'y:min_cosine': write a limit of an output as NAME:LIMIT=VALUE"),
        ("min_cosine=1", "'min_cosine=1': write a limit of an output as NAME:LIMIT=VALUE"),
        ("y:min_cosine=much", "'y:min_cosine=much': 'much' is not a number"),
        ("y:cosine=1", f"y: unknown key 'cosine'; known keys are {KNOWN}"),
        ("y:outputs=1", f"y: unknown key 'outputs'; known keys are {KNOWN}"),
    ],
)
def test_lines_that_are_no_limits(line, message):
    with pytest.raises(DkmError) as caught:
        parse_output_limits([line])
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_bytes": "10"}, "limits.max_bytes is '10'; it must be a number"),
        ({"max_load_ratio": True}, "limits.max_load_ratio is True; it must be a number"),
        ({"min_agreement": np.nan}, "limits: min_agreement is nan; it must be a number"),
        ({"novel": 1}, f"limits: unknown key 'novel'; known keys are {KNOWN_OF_FILES}"),
        ({"outputs": [1]}, "limits.outputs is [1]; it must be a mapping"),
        (
            {"outputs": {"y": 3}},
            f"limits.outputs['y'] is 3; it must be a mapping with the keys {KNOWN}",
        ),
        (
            {"outputs": {"y": {"min_cosine": "a"}}},
            "limits.outputs['y'].min_cosine is 'a'; it must be a number",
        ),
    ],
)
def test_json_that_is_no_limits(values, message):
    with pytest.raises(DkmError) as caught:
        from_plain(values, Limits, "limits")
    assert str(caught.value) == message


def test_json_without_limits_is_none():
    assert from_plain({"max_bytes": 1e6}, Limits) == Limits(max_bytes=10**6)
    for values in ({}, {"max_bytes": None, "outputs": {}}):
        assert from_plain(values, Limits) == Limits()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"outputs": 3}, "outputs is 3; give limits by output"),
        ({"outputs": {3: OutputLimits()}}, "outputs: 3 is not the name of an output"),
        ({"outputs": {"y": 3}}, "outputs['y'] is 3; give a dkm.OutputLimits"),
        ({"max_bytes": "10"}, "max_bytes is '10'; it must be a number"),
        ({"min_agreement": np.nan}, "min_agreement is nan; it must be a number"),
    ],
)
def test_what_limits_may_not_hold(given, message):
    with pytest.raises(DkmError) as caught:
        Limits(**given)
    assert str(caught.value) == message


def test_limits_are_for_outputs_that_are_there():
    limits = Limits(outputs={"a": OutputLimits(), "z": OutputLimits()})
    check_names(limits, iter(["z", "a"]))
    with pytest.raises(DkmError, match="^limits for output 'z'; the outputs are a, b$"):
        check_names(limits, iter(["a", "b"]))


def test_limits_are_merged_one_by_one():
    base = Limits(max_bytes=10, min_agreement=0.5, outputs={"y": OutputLimits(1, 2)})
    over = Limits(
        min_agreement=0.0,
        max_load_ratio=2,
        outputs={"y": OutputLimits(max_element_error=0), "z": OutputLimits(min_cosine=0.5)},
    )
    assert merge_limits(base, over) == Limits(
        max_bytes=10,
        min_agreement=0.0,
        max_load_ratio=2,
        outputs={"y": OutputLimits(1, 0), "z": OutputLimits(min_cosine=0.5)},
    )
    assert merge_limits(base, Limits()) == base


def test_a_limit_of_zero_is_a_limit():
    limits = Limits(max_relative_error=1, outputs={"y": OutputLimits(max_relative_error=0)})
    assert limits_of("y", limits) == OutputLimits(0, 0)
    assert limits_of("z", Limits(max_element_error=3)) == OutputLimits(None, 3)
