"""What the check of parity says, by figures at their limits and beside them."""

from __future__ import annotations

from dataclasses import replace

import pytest

import dkm_deploy as dkm
from dkm_deploy.parity.figures import Figure, OutputJudgement
from dkm_deploy.parity.output_errors import Errors
from dkm_deploy.validation.check import Check
from dkm_deploy.validation.checks.output_checks import parity_check

ERRORS = Errors(0.5, 0.25, 0.375, 0.125, 0.75, 18.5, 20.5, 0.875, 0, 10)
"""Of one output, in the order of the record."""


def _judged(ratio, *others, overflown=0):
    """An output under limits of its own; the ratios are those of its figures."""
    figures = tuple(
        Figure(what, value=ratio * 0.02, noise=0.01, factor=2.0)
        for what, ratio in zip(
            ("error of sample 3", "error of element 7", "gain", "mean error"),
            (ratio, *others),
            strict=False,
        )
    )
    return OutputJudgement(figures, 0.1, "the model's own {}", overflown)


def _check(found, limits=None, own=None, reason="", ran=True):
    return parity_check(found, reason, ran, limits or dkm.Limits(), own or {})


@pytest.mark.parametrize(
    ("limit", "told", "kept", "beside"),
    [
        ("max_relative_error", "relative error 1.25e-01, limit {:.2e}", 0.125, 0.124),
        ("max_element_error", "relative error of an element 7.50e-01, limit {:.2e}", 0.75, 0.74),
        ("max_abs_error", "largest difference 5.00e-01, limit {:.2e}", 0.5, 0.49),
        ("max_mean_error", "mean difference 2.50e-01, limit {:.2e}", 0.25, 0.24),
        ("max_p999_error", "99.9th percentile of the difference 3.75e-01, limit {:.2e}", 0.375, 0),
        ("min_sqnr_db", "SQNR in dB 18.5, limit {:g}", 18.5, 18.6),
        ("min_psnr_db", "PSNR in dB 20.5, limit {:g}", 20.5, 1e9),
        ("min_cosine", "cosine 0.875, limit {:g}", 0.875, 0.9),
    ],
)
def test_each_limit_is_about_its_own_figure(limit, told, kept, beside):
    for value, status in ((kept, "passed"), (beside, "failed")):
        wanted = {"max_relative_error": 0.125, "max_element_error": 1.0} | {limit: value}
        limits = dkm.Limits(outputs={"out": dkm.OutputLimits(**wanted)})
        found = _check({"out": ERRORS}, limits)
        assert (found.name, found.status) == ("parity", status)
        if status == "failed":
            assert found.reason == f"out: {told.format(value)}"
        else:
            assert found.reason == "out: relative error 1.25e-01, limit 1.25e-01"


def test_every_limit_that_fails_is_told():
    limits = dkm.Limits(outputs={"a": dkm.OutputLimits(max_abs_error=0.1, min_cosine=0.9)})
    found = _check({"a": replace(ERRORS, nonfinite=2)}, limits)
    assert found.status == "failed"
    assert found.reason == (
        "a: 2 NaN or infinite; a: largest difference 5.00e-01, limit 1.00e-01; "
        "a: cosine 0.875, limit 0.9"
    )


def test_decibels_without_noise_keep_every_limit():
    exact = replace(ERRORS, relative=0.0, sqnr_db=None, psnr_db=None)
    wanted = dkm.OutputLimits(max_relative_error=0, min_sqnr_db=99, min_psnr_db=99)
    found = _check({"a": exact}, dkm.Limits(max_element_error=1, outputs={"a": wanted}))
    assert found.reason == "a: relative error 0.00e+00, limit 0.00e+00"
    assert found.status == "passed"


@pytest.mark.parametrize(("ran", "status"), [(True, "failed"), (False, "skipped")])
def test_without_errors_the_reason_is_told(ran, status):
    assert _check({}, reason="it hung", ran=ran) == Check("parity", status, "it hung")


def test_an_output_beside_its_own_noise_fails_by_its_three_worst_slices():
    found = _check({"a": ERRORS}, own={"a": _judged(4, 3, 2, 1.5, overflown=6)})
    assert found.status == "failed"
    assert found.reason == (
        "a: relative error 1.25e-01: "
        "error of sample 3 8.00e-02, limit 2.00e-02 (2 x the model's own 1.00e-02); "
        "error of element 7 6.00e-02, limit 2.00e-02 (2 x the model's own 1.00e-02); "
        "gain 4.00e-02, limit 2.00e-02 (2 x the model's own 1.00e-02); "
        "values overflow in float16, which changes 6 elements of the model itself"
    )


def test_only_slices_beyond_their_limit_are_told():
    found = _check({"a": ERRORS}, own={"a": _judged(2, 1, 0.5)})
    assert found.status == "failed"
    assert found.reason == (
        "a: relative error 1.25e-01: "
        "error of sample 3 4.00e-02, limit 2.00e-02 (2 x the model's own 1.00e-02)"
    )
    assert _check({"a": ERRORS}, own={"a": _judged(float("nan"))}).status == "failed"


def test_what_passes_tells_the_output_nearest_to_its_limit():
    own = {"a": _judged(0.25), "b": _judged(1, 0.5, overflown=3), "c": _judged(0.5)}
    found = _check(dict.fromkeys("abc", ERRORS), own=own)
    assert (found.name, found.status) == ("parity", "passed")
    assert found.reason == (
        "b: relative error 1.25e-01; nearest to its limit: "
        "error of sample 3 2.00e-02, limit 2.00e-02 (2 x the model's own 1.00e-02)"
    )


def test_limits_that_were_asked_for_take_the_place_of_noise():
    own = {"a": _judged(9, 9)}
    asked = _check({"a": ERRORS}, dkm.Limits(max_relative_error=0.25), own)
    assert (asked.status, asked.reason) == ("passed", "a: relative error 1.25e-01, limit 2.50e-01")
    element = _check({"a": ERRORS}, dkm.Limits(max_element_error=1), {"a": _judged(0.5, 9)})
    assert element.status == "passed"
    assert element.reason == (
        "a: relative error 1.25e-01; nearest to its limit: "
        "error of sample 3 1.00e-02, limit 2.00e-02 (2 x the model's own 1.00e-02)"
    )


def test_outputs_under_limits_of_both_kinds_are_compared_by_their_share():
    def nearest(limit, ratio):
        outputs = {"a": dkm.OutputLimits(max_relative_error=limit)}
        found = _check(
            {"a": ERRORS, "b": ERRORS}, dkm.Limits(outputs=outputs), {"b": _judged(ratio)}
        )
        assert found.status == "passed"
        return found.reason[0]

    assert nearest(0.25, 0.4) == "a"
    assert nearest(0.25, 0.6) == "b"
    assert nearest(0.2, 0.6) == "a"


def test_a_limit_of_zero_takes_nothing_where_there_is_no_error():
    limits = dkm.Limits(outputs={"a": dkm.OutputLimits(max_relative_error=0, max_element_error=9)})
    found = _check({"a": replace(ERRORS, relative=0.0), "b": ERRORS}, limits, {"b": _judged(0.5)})
    assert found.reason.startswith("b: ")


def test_an_output_without_a_finite_value_is_skipped_and_blocks():
    empty = replace(ERRORS, compared=0, relative=9.0)
    limits = dkm.Limits(max_relative_error=1)
    found = _check({"a": ERRORS, "b": empty}, limits)
    assert found == Check(
        "parity", "skipped", "b: PyTorch gives no finite value to compare with", blocks=True
    )
    assert _check({"a": replace(empty, nonfinite=1)}, limits).reason == "a: 1 NaN or infinite"
