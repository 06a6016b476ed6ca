"""When a report has passed, and what its JSON holds; records alone."""

from __future__ import annotations

import pytest

import dkm_deploy as dkm
from dkm_deploy.report import summary
from dkm_deploy.validation.record import Check, Model, Report
from dkm_deploy.validation.required import with_required

PASSED, MISSED = Check("parity", "passed", "p"), Check("size", "missed", "m")
NOT_RUN, BLOCKS = Check("metric", "not run", "n"), Check("metric", "not run", "b", blocks=True)


def _report(*checks, required=False, **about):
    rows = [Model("original (fp32)", **about), Model("m.onnx", path="m.onnx", checks=checks)]
    models = tuple(with_required(rows, required))
    return Report(models, (), {}, 4, None, dkm.Limits(), {}, required)


@pytest.mark.parametrize(
    ("checks", "required", "passed"),
    [
        ([PASSED], False, True),
        ([PASSED, NOT_RUN], False, True),
        ([PASSED, NOT_RUN], ("parity",), True),
        ([PASSED, NOT_RUN], ("metric",), False),
        ([PASSED, NOT_RUN], True, False),
        ([PASSED, BLOCKS], False, False),
        ([PASSED, BLOCKS], ("parity",), False),
        ([PASSED], ("size",), False),
        ([PASSED, MISSED], False, False),
        ([NOT_RUN], False, False),
        ([], False, False),
    ],
)
def test_what_passes(checks, required, passed):
    report = _report(*checks, required=required)
    assert bool(report) == passed
    assert (summary.state(report.to_dict()) == "passed") == passed
    assert ("Passed" in summary.headline(report.to_dict())) == passed


def test_reasons_are_told_by_file_and_check():
    report = _report(PASSED, MISSED, NOT_RUN, BLOCKS)
    assert report.missed == ("m.onnx: size: m",)
    assert report.not_run == ("m.onnx: metric: n", "m.onnx: metric: b")
    assert report.lacking == ("m.onnx: metric: b",)
    assert [file.name for file in report.files] == ["m.onnx"]
    unasked = _report(PASSED, required=("size",))
    assert unasked.lacking == ("m.onnx: size: required, but no limit asks for it",)


def test_what_json_has_no_number_for_is_null():
    report = _report(PASSED, metric=float("nan"), agreement=float("-inf"), size_ratio=2.0)
    found = report.to_dict()["models"][0]
    assert (found["metric"], found["agreement"], found["size_ratio"]) == (None, None, 2.0)
