"""What a row says where there is little to tell: no runtime, no original, no device that weighs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.model.metric import accuracy
from dkm_deploy.parity.mean_difference import GainAndOffset
from dkm_deploy.parity.output_errors import errors
from dkm_deploy.parity.reduced_precision import Arithmetic
from dkm_deploy.parity.rounding_noise import Noise, OutputNoise
from dkm_deploy.parity.slice_comparison import judge_outputs
from dkm_deploy.runtimes import NotTakenError, WrongLabelError
from dkm_deploy.validation import report_rows
from dkm_deploy.validation.check import Check
from dkm_deploy.validation.golden.device_outputs import DeviceOutputs
from dkm_deploy.validation.measures.confidence_interval import metric_loss
from dkm_deploy.validation.measures.top1_agreement import compare_answers
from dkm_deploy.validation.report import Model
from dkm_deploy.validation.task import Original, Task

X = np.ones((4, 2), np.float32)
SCORES = np.eye(4, 3, dtype=np.float32) + 1
TASK = Task(X, {"output": SCORES}, None, None, accuracy, dkm.Limits(), {})


class _Runtime:
    name, native = "a runtime", True

    def __init__(self, outcome):
        self.outcome = outcome

    def load(self, path):
        self.input_shapes = {"x": (None, 2)}
        return self

    def run(self, inputs):
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (NotTakenError("no pixels"), (None, "no pixels", False)),
        (WrongLabelError("label 3"), ({}, "label 3", False)),
        (dkm.DkmError("no op"), (None, "a runtime: no op", True)),
        (KeyError("op"), (None, "a runtime: KeyError: 'op'", True)),
    ],
)
def test_why_a_file_gives_nothing(monkeypatch, outcome, told):
    monkeypatch.setattr(report_rows, "runtime_for", lambda *_: _Runtime(outcome))
    ran = report_rows._run(Path("m.x"), X)
    assert (ran.outputs, ran.reason, ran.refused) == told
    assert (ran.runtime, ran.session, ran.half, ran.native) == ("a runtime", None, None, False)


def test_what_ran_is_told(monkeypatch):
    runtime = _Runtime({"y": SCORES})
    monkeypatch.setattr(report_rows, "runtime_for", lambda *_: runtime)
    ran = report_rows._run(Path("m.x"), X)
    assert (ran.outputs, ran.runtime, ran.reason) == ({"y": SCORES}, "a runtime", "")
    assert (ran.session, ran.half, ran.native, ran.refused) == (runtime, None, True, False)
    runtime.computes_half, runtime.native = True, False
    ran = report_rows._run(Path("m.x"), X)
    assert (ran.half, ran.native) == (True, False)


def test_where_nothing_runs_a_file_the_reason_is_told():
    ran = report_rows._run(Path("m.x"), X)
    assert ran == report_rows._Ran(None, None, "m.x: no runtime here runs '.x' files")


def test_ratios_are_of_the_original():
    for original in (None, Original({}, 0, 5)):
        assert report_rows._ratios(original, 10) == (None, None)
    assert report_rows._ratios(Original({}, 40, None), 10) == (4, None)
    assert report_rows._ratios(Original({}, 40, 20), 10) == (4, 2)


def test_the_row_of_a_model_tells_its_size_and_its_answers():
    torch.manual_seed(0)
    model, answers = nn.Linear(2, 3), np.array([0, 1, 2, 0])
    task = replace(TASK, labels=answers, original=Original({"output": SCORES}, 72, 54))
    row = report_rows.model_row("small", model, {"y": SCORES[::-1].copy()}, task)
    compared = compare_answers(SCORES[::-1], SCORES, answers)
    assert row == Model(
        name="small",
        runtime=f"PyTorch {torch.__version__}",
        size_bytes=4 * (6 + 3),
        size_ratio=2,
        half_ratio=1.5,
        bits_per_weight=32,
        metric=accuracy(SCORES[::-1], answers),
        metric_loss=metric_loss(accuracy, SCORES, SCORES[::-1], answers),
        agreement=compared.agreement,
        flip_count=compared.flip_count,
        flips=compared.flips,
        errors={"output": errors(SCORES[::-1], SCORES)},
    )


def test_a_relative_limit_is_asked_for_or_comes_from_noise():
    own = judge_outputs({"output": SCORES}, {"output": SCORES}, None, "float32")
    assert report_rows._relative_limit("output", dkm.Limits(max_relative_error=0.5), own) == 0.5
    assert report_rows._relative_limit("output", dkm.Limits(max_relative_error=0), own) == 0
    assert (
        report_rows._relative_limit("output", dkm.Limits(), own) == own["output"].relative_limit > 0
    )
    assert report_rows._relative_limit("output", dkm.Limits(), {}) == 0


def test_costs_are_measured_only_if_asked_for():
    class Meter:
        def measure(self, path):
            if path == Path("bad"):
                raise KeyError("memory")
            return f"costs of {path}"

    assert report_rows._costs(Path("m"), TASK) == (None, "")
    asked = replace(TASK, meter=Meter())
    assert report_rows._costs(Path("m"), asked) == ("costs of m", "")
    assert report_rows._costs(Path("bad"), asked) == (None, "KeyError: 'memory'")


def test_a_check_that_crashes_blocks_and_damage_is_raised():
    def crash(error):
        def check():
            raise error

        return check

    passed = Check("dense", "passed", "p")
    assert report_rows._unless_it_fails("dense", lambda: passed) is passed
    told = Check("dense", "skipped", "it failed: ValueError: odd", blocks=True)
    assert report_rows._unless_it_fails("dense", crash(ValueError("odd"))) == told
    with pytest.raises(dkm.DkmError, match="^damaged$"):
        report_rows._unless_it_fails("dense", crash(dkm.DkmError("damaged")))


class TestReturned:
    """Outputs that a device gave."""

    def row(self, outputs, **changes):
        returned = DeviceOutputs(outputs, "a phone")
        return report_rows.returned_row(Path("runs/phone"), returned, replace(TASK, **changes))

    def test_its_outputs_are_all_that_is_known(self):
        row = self.row({"output": SCORES}, original=Original({"output": SCORES}, 8, 4))
        assert (row.name, row.path, row.runtime) == ("phone", "runs/phone", "a phone")
        assert (row.agreement, row.size_bytes, row.size_ratio, row.cost) == (1, None, None, None)
        assert [check.name for check in row.checks] == ["parity"]
        assert row.checks[0].status == "passed"
        assert list(row.errors) == ["output"]

    def test_a_constant_for_half_precision_judges_where_noise_is_unknown(self):
        assert self.row({"output": SCORES * 1.005}).checks[0].status == "passed"
        assert self.row({"output": SCORES * 1.2}).checks[0].status == "failed"

    def test_it_has_four_times_the_noise_of_float16(self):
        half, level = Arithmetic("float16", "float16"), np.full_like(SCORES, 0.01)
        noise = Noise(half, np.arange(4), {"output": OutputNoise(level, GainAndOffset({}, {}))})
        near = self.row({"output": SCORES + 0.1}, noise={half: noise}).checks[0]
        assert near.status == "passed"
        assert "the model's own float16 noise" in near.reason
        assert self.row({"output": SCORES + 0.5}, noise={half: noise}).checks[0].status == "failed"

    def test_why_the_metric_decides_nothing_is_told(self):
        checks = self.row({"output": SCORES}, undecided="all labels are 7").checks
        assert checks[1:] == (Check("metric", "skipped", "all labels are 7"),)

    @pytest.mark.parametrize(
        ("shape", "reason"),
        [
            ((2,), "output 'output' has shape (2,), not that of 2 steps"),
            ((2, 4, 3), "shape (8, 3) in place of (4, 3)"),
        ],
    )
    def test_steps_that_do_not_fit_fail(self, shape, reason):
        given = dkm.Steps([torch.ones(2, 2)] * 2)
        row = self.row({"output": np.ones(shape, np.float32)}, inputs=given)
        assert row.checks == (Check("parity", "failed", reason),)

    def test_outputs_that_do_not_fit_fail(self):
        row = self.row({"output": SCORES[:2]})
        reason = "shape (2, 3) in place of (4, 3)"
        assert row.checks == (Check("parity", "failed", reason),)
        assert (row.errors, row.agreement) == ({}, None)
        row = self.row({})
        assert row.checks == (Check("parity", "failed", "outputs are ; PyTorch has output"),)

    @pytest.mark.parametrize(
        ("limits", "names"),
        [
            ({"max_bytes": 1}, ["size"]),
            ({"max_size_ratio": 1}, ["size"]),
            ({"max_latency_ratio": 1}, ["cost"]),
            ({"max_load_ratio": 1}, ["cost"]),
            ({"max_peak_ratio": 0}, ["cost"]),
            ({"max_bytes": 0, "max_peak_ratio": 1}, ["size", "cost"]),
            ({"max_abs_error": 1}, []),
        ],
    )
    def test_limits_on_the_file_are_skipped(self, limits, names):
        if "max_abs_error" in limits:
            limits = {"outputs": {"output": dkm.OutputLimits(**limits)}}
        checks = self.row({"output": SCORES}, limits=dkm.Limits(**limits)).checks[1:]
        reason = "a device gives outputs only; dkm-deploy validate checks the file"
        assert list(checks) == [Check(name, "skipped", reason) for name in names]
