"""When a report has passed, and what its JSON holds; records alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import dkm_deploy as dkm
from dkm_deploy.report import summary
from dkm_deploy.report.html.page import page
from dkm_deploy.report.junit import junit
from dkm_deploy.validation.check import Check
from dkm_deploy.validation.report import Model, Report
from dkm_deploy.validation.required_checks import required_of, with_required

PASSED, MISSED = Check("parity", "passed", "p"), Check("size", "failed", "m")
NOT_RUN, BLOCKS = Check("metric", "skipped", "n"), Check("metric", "skipped", "b", blocks=True)


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
    assert report.failed == ("m.onnx: size: m",)
    assert report.skipped == ("m.onnx: metric: n", "m.onnx: metric: b")
    assert report.lacking == ("m.onnx: metric: b",)
    assert [file.name for file in report.files] == ["m.onnx"]
    unasked = _report(PASSED, required=("size",))
    assert unasked.lacking == ("m.onnx: size: required, but no limit asks for it",)


def test_what_json_has_no_number_for_is_null():
    report = _report(PASSED, metric=float("nan"), agreement=float("-inf"), size_ratio=2.0)
    found = report.to_dict()["models"][0]
    assert (found["metric"], found["agreement"], found["size_ratio"]) == (None, None, 2.0)


def _texts(tmp_path, report, **how):
    """What each way of writing leaves in its file."""
    written = {}
    for kind in ("json", "junit", "html"):
        getattr(report, f"to_{kind}")(tmp_path / kind, **how)
        written[kind] = (tmp_path / kind).read_bytes()
    return written


def test_each_view_is_written_once_unless_it_is_to_be_replaced(tmp_path):
    report = _report(PASSED, Check("size", "failed", "größer"))
    table = report.to_dict()
    expected = {
        "json": (json.dumps(table, indent=2) + "\n").encode(),
        "junit": junit(table).encode(),
        "html": page(table).encode(),
    }
    assert _texts(tmp_path, report) == expected
    for kind in expected:
        with pytest.raises(FileExistsError):
            getattr(report, f"to_{kind}")(tmp_path / kind)
    other = _report(PASSED)
    assert _texts(tmp_path, other, force=True)["junit"] == junit(other.to_dict()).encode()


def test_texts_are_utf_8_whatever_the_machine_prefers(tmp_path, monkeypatch):
    write, given = Path.write_text, []

    def noted(path, text, encoding=None):
        given.append(encoding)
        return write(path, text, encoding)

    monkeypatch.setattr(Path, "write_text", noted)
    _texts(tmp_path, _report(PASSED))
    assert [str(encoding).lower() for encoding in given] == ["utf-8"] * 3


def test_json_says_what_it_is():
    found = _report(PASSED, MISSED).to_dict()
    assert (found["format"], found["version"], found["passed"]) == ("dkm-deploy report", 2, False)
    assert _report(PASSED).to_dict()["passed"] is True
    assert found["models"][1]["checks"][1] == {
        "name": "size",
        "status": "failed",
        "reason": "m",
        "blocks": False,
    }


@pytest.mark.parametrize("name", ["dense", "interface"])
def test_half_a_proof_does_not_pass_alone(name):
    half = Check(name, "passed", "p")
    assert not _report(half)
    assert _report(half, PASSED)


def test_a_name_of_a_check_is_required_once_and_must_be_one():
    assert required_of(True) is True
    assert required_of(False) is False
    assert required_of(["size", "parity", "size"]) == ("size", "parity")
    assert required_of("size") == ("size",)
    with pytest.raises(dkm.DkmError) as caught:
        required_of(["parity", "speed"])
    assert str(caught.value) == (
        "require: unknown check 'speed'; known checks are palettes, dense, interface, parity, "
        "metric, agreement, size, budget, cost"
    )
    with pytest.raises(dkm.DkmError, match="^require is 3; give a name or several$"):
        required_of(3)


def test_only_files_lack_a_check():
    rows = [Model("frozen (hard)"), Model("m.onnx", path="m.onnx", checks=(PASSED,))]
    model, file = with_required(rows, ("parity", "size", "cost"))
    assert model == rows[0]
    lacking = "required, but no limit asks for it"
    assert file.checks == (
        PASSED,
        Check("size", "skipped", lacking),
        Check("cost", "skipped", lacking),
    )
    assert list(with_required(rows, True)) == rows
