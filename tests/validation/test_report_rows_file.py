"""The row of a file: all that is known of it, and its checks in their order; nothing is converted.

The file is a name and 100 bytes, and what reads and runs it the test's own.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import dkm_deploy as dkm
from dkm_deploy.formats.ledger import Ledger, LedgerEntry
from dkm_deploy.model.metric import accuracy
from dkm_deploy.parity.output_errors import errors
from dkm_deploy.validation import report_rows
from dkm_deploy.validation.check import CHECKS, Check
from dkm_deploy.validation.measures.confidence_interval import metric_loss
from dkm_deploy.validation.measures.top1_agreement import compare_answers
from dkm_deploy.validation.report import Model
from dkm_deploy.validation.size_budget import Allowance
from dkm_deploy.validation.task import Original, Task

X = np.ones((4, 2), np.float32)
SCORES = np.eye(4, 7, dtype=np.float32) + 1
RIGHT = {"y": SCORES}
TASK = Task(X, {"output": SCORES}, None, None, accuracy, dkm.Limits(), {})
STORED = {"w": dkm.Palette(np.zeros(3, np.uint8), np.ones((1, 4, 1), np.float16))}
SIZES = {"indices": 10, "lut": 8, "dense": 12, "graph": 20, "metadata": 0, "padding": 50}


class _Runtime:
    name, native = "a runtime", True

    def __init__(self, outputs):
        self.outputs, self.input_shapes = outputs, {"x": (None, 2)}

    def load(self, path):
        return self

    def run(self, inputs):
        return self.outputs


class _Reader:
    """Reads ``stored`` out of a file of 100 bytes."""

    def __init__(self, stored):
        self.stored = stored

    def read_palettes(self, path):
        return self.stored

    def ledger(self, path):
        return Ledger(path, tuple(LedgerEntry(kind, "w", n) for kind, n in SIZES.items()))


@pytest.fixture
def file_row(monkeypatch, tmp_path):
    """The row of ``folder/m.x``, which gives ``outputs``."""
    (tmp_path / "m.x").write_bytes(bytes(100))

    def row(outputs=RIGHT, stored=STORED, **changes):
        monkeypatch.setattr(report_rows, "function_reader", lambda *_: _Reader(stored))
        monkeypatch.setattr(report_rows, "runtime_for", lambda *_: _Runtime(outputs))
        return report_rows.file_row(tmp_path / "m.x", replace(TASK, **changes))

    return row


def test_all_that_is_known_of_it_is_in_its_row(file_row, tmp_path):
    answers = np.array([0, 1, 2, 0])
    before = Original({"output": SCORES[::-1].copy()}, 400, 200)
    meter = SimpleNamespace(measure=lambda path: f"costs of {path.name}")
    row = file_row(original=before, labels=answers, frozen=STORED, meter=meter)
    loss = metric_loss(accuracy, before.outputs["output"], SCORES, answers)
    compared = compare_answers(SCORES, before.outputs["output"], answers)
    assert compared.flip_count
    assert replace(row, checks=()) == Model(
        name="m.x",
        path=str(tmp_path / "m.x"),
        runtime="a runtime",
        size_bytes=100,
        size_ratio=4,
        half_ratio=2,
        deflated_bytes=len(zlib.compress(bytes(100), 6)) - 6,  # without zlib's own frame
        ideal_bytes=1 + 8 + 12,
        bits_per_weight=8 * (10 + 8) / 3,
        metric=75,
        metric_loss=loss,
        agreement=compared.agreement,
        top5_overlap=compared.top5_overlap,
        flip_count=compared.flip_count,
        flips=compared.flips,
        errors={"output": errors(SCORES, SCORES)},
        bytes_by_kind=SIZES,
        cost="costs of m.x",
    )


def test_its_checks_come_in_one_order(file_row):
    limits = dkm.Limits(max_metric_loss=1, min_agreement=1, max_bytes=1, max_peak_ratio=1)
    row = file_row(limits=limits, budget=dkm.Budget((Allowance("*.x", max_bytes=99),)))
    told = {check.name: (check.status, check.reason) for check in row.checks}
    needs = "it needs an original"
    renamed = "output 'y' is matched by its place with PyTorch's 'output'"
    assert told | {"parity": ""} == {
        "palettes": ("skipped", "the reference has no palettes to compare with"),
        "dense": ("skipped", "the dense weights of the reference are not given"),
        "interface": (
            "passed",
            f"names of outputs alone are compared, of .x files; {renamed}",
        ),
        "parity": "",
        "metric": ("skipped", f"{needs}, labels and the file's outputs"),
        "agreement": ("skipped", f"{needs} and the file's outputs"),
        "size": ("failed", "100 bytes, limit 1; 50 bytes are padding, 50 in 'w'"),
        "budget": ("failed", "100 bytes, budget 99 for '*.x'"),
        "cost": (
            "skipped",
            "peak memory: the cost was not measured: --cost (cost=dkm.CostOptions()) does it",
        ),
    }
    assert [check.name for check in row.checks] == list(CHECKS)


def test_its_size_is_compared_with_the_originals(file_row):
    row = file_row(original=Original(RIGHT, 400, None), limits=dkm.Limits(max_size_ratio=0.25))
    reason = "0.2500 of the original's 400 bytes, limit 0.25"
    assert row.checks[-1] == Check("size", "passed", reason)


def test_why_the_metric_decides_nothing_is_told(file_row):
    checks = file_row(undecided="all labels are 7").checks
    assert checks[-1] == Check("metric", "skipped", "all labels are 7")


def test_a_comparison_that_fails_is_told_by_its_name(file_row, monkeypatch):
    def fails(*_):
        raise ValueError("odd")

    for name in ("dense", "interface"):
        monkeypatch.setattr(report_rows, f"{name}_check", fails)
    checks = file_row().checks[1:3]
    assert [(check.name, check.reason) for check in checks] == [
        ("dense", "it failed: ValueError: odd"),
        ("interface", "it failed: ValueError: odd"),
    ]


def test_outputs_that_do_not_fit_have_no_answers(file_row):
    row = file_row({"y": SCORES[:, :2]}, labels=np.zeros(4, int))
    assert (row.errors, row.metric, row.agreement) == ({}, None, None)


def test_a_cost_that_could_not_be_measured_is_told(file_row):
    def fails(path):
        raise KeyError("memory")

    row = file_row(meter=SimpleNamespace(measure=fails))
    assert row.checks[-1] == Check("cost", "skipped", "KeyError: 'memory'")


def test_without_a_palette_no_weight_has_bits(file_row):
    assert file_row(stored={}).bits_per_weight is None
