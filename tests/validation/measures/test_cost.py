"""What it costs to run: measured in fresh processes, and not run where a process gives nothing."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.runtimes.onnx_runtime.runtime import runtime
from dkm_deploy.validation.measures.cost import FIGURES, middle, ratios
from tests.models import MIXED, images, small_net

QUICK = dkm.CostOptions(rounds=2, runs=5)
LOOSE = dkm.Limits(max_latency_ratio=1e6, max_load_ratio=1e6)


@pytest.fixture(scope="module")
def frozen():
    return dkm.palettize(small_net(), MIXED)


@pytest.fixture(scope="module")
def path(frozen, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return dkm.convert(frozen, images(1), folder / "model.onnx").path


@pytest.fixture(scope="module")
def beside_dense(tmp_path_factory):
    """Options with a dense file of the user's own."""
    path = tmp_path_factory.mktemp("dense") / "mine.onnx"
    dkm.convert(small_net(), images(1), path)
    return dkm.CostOptions(path, rounds=1, runs=5, timeout_s=3)


def validate(path, frozen, original=None, **how):
    how = {"cost": QUICK} | how
    return dkm.validate([path], reference=frozen, original=original, inputs=images(4), **how)


def _cost_checks(report):
    return [check for check in report.files[0].checks if check.name == "cost"]


def test_a_file_is_measured_beside_the_converted_original(path, frozen):
    report = validate(path, frozen, small_net(), limits=LOOSE)
    cost = report.files[0].cost
    for found in (cost.file, cost.dense):
        assert 0 < found.median_s <= found.p95_s
        assert found.load_s > 0
        assert found.first_s > 0
    assert {"load_s", "first_s", "median_s", "p95_s"} <= set(cost.ratios)
    assert cost.beside == "the original, converted to .onnx"
    assert (cost.threads, cost.batch, cost.rounds) == (1, 1, 2)
    assert [check.status for check in _cost_checks(report)] == ["passed", "passed"]
    assert report


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_grows_with_the_file(tmp_path):
    model = nn.Sequential(nn.Linear(2000, 2000)).eval()  # 16 MB
    path = dkm.convert(model, torch.ones(1, 2000), tmp_path / "large.onnx").path
    options = dkm.CostOptions(rounds=1, runs=5)
    report = dkm.validate([path], reference=model, inputs=torch.ones(2, 2000), cost=options)
    found = report.files[0].cost.file
    assert 16e6 < found.peak_bytes < 200e6
    assert 16e6 < found.steady_bytes < 100e6


def test_the_users_dense_file_is_taken(path, frozen, beside_dense):
    cost = validate(path, frozen, cost=beside_dense).files[0].cost
    assert cost.beside == "mine.onnx"
    assert cost.dense is not None


def test_a_file_with_a_fixed_batch_is_run_on_one_batch(frozen, tmp_path):
    two = dkm.convert(frozen, images(2), tmp_path / "two.onnx").path
    assert validate(two, frozen).files[0].cost.batch == 2


def test_a_limit_can_fail(path, frozen, beside_dense):
    limits = dkm.Limits(max_load_ratio=1e-6)
    report = validate(path, frozen, cost=beside_dense, limits=limits)
    assert "cost: load time" in report.failed[0]
    assert not report


def test_nothing_is_measured_unless_asked(path, frozen):
    report = validate(path, frozen, cost=None)
    assert report.files[0].cost is None
    assert _cost_checks(report) == []


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"cost": None}, "the cost was not measured: --cost"),
        ({}, "nothing to compare with: neither a dense file nor the original model was given"),
    ],
)
def test_a_limit_that_cannot_be_checked_is_skipped(path, frozen, how, reason):
    report = validate(path, frozen, limits=dkm.Limits(max_latency_ratio=2), **how)
    (check,) = _cost_checks(report)
    assert check.status == "skipped"
    assert reason in check.reason


def test_the_reference_evaluator_says_nothing_about_a_device(frozen, tmp_path):
    package = dkm.convert(frozen, images(1), tmp_path / "m.mlpackage").path
    (check,) = _cost_checks(validate(package, frozen))
    assert check.status == "skipped"
    assert "reference evaluator" in check.reason
    assert check.reason.endswith("for example with Xcode's performance report")


FAULTS = {
    "raise MemoryError('out of it')": "MemoryError: out of it",
    "import os; os.kill(os.getpid(), 9)": "was ended by signal 9, probably for lack of memory",
    "import os; os._exit(3)": "ended with exit code 3",
    "import time; time.sleep(60)": "took more than 3 s",
}


@pytest.mark.parametrize(("fault", "reason"), FAULTS.items())
def test_a_process_that_gives_nothing_is_skipped(
    path, frozen, beside_dense, tmp_path, monkeypatch, fault, reason
):
    bare = tmp_path / "bare.py"
    bare.write_text(f"def load(path, threads):\n    {fault}\n")
    monkeypatch.setattr(type(runtime), "bare", bare)
    report = validate(path, frozen, cost=beside_dense, limits=LOOSE, require=True)
    assert report.files[0].cost is None
    assert [check.status for check in _cost_checks(report)] == ["skipped", "skipped"]
    assert all(reason in check.reason for check in _cost_checks(report))
    assert not report


def test_without_a_limit_too_it_is_told_that_nothing_was_measured(path, frozen, monkeypatch):
    monkeypatch.setattr(type(runtime), "bare", path.with_name("gone.py"))
    (check,) = _cost_checks(validate(path, frozen))
    assert check.status == "skipped"
    assert "gone.py" in check.reason


def test_a_process_imports_no_more_than_the_runtime(path, frozen, tmp_path, monkeypatch):
    bare = tmp_path / "bare.py"
    found = tmp_path / "modules.txt"
    text = runtime.bare.read_text()
    text += f"\nimport pathlib, sys\npathlib.Path({str(found)!r}).write_text(' '.join(sys.modules))"
    bare.write_text(text)
    monkeypatch.setattr(type(runtime), "bare", bare)
    assert validate(path, frozen).files[0].cost is not None
    modules = set(found.read_text().split())
    assert "onnxruntime" in modules
    assert not modules & {"torch", "dkm_deploy", "coremltools"}


def _round(value, **other):
    return dict.fromkeys(FIGURES, value) | other


def test_figures_are_medians_and_ratios_are_those_of_each_round():
    file = [_round(1.0), _round(8.0), _round(3.0, peak_bytes=None)]
    dense = [_round(1.0, steady_bytes=0.0), _round(2.0), _round(6.0)]
    assert middle(file).median_s == 3.0
    assert middle(file).peak_bytes == 4.5
    found = ratios(file, dense)
    assert found["median_s"] == 1.0  # of 1, 4 and 0.5
    assert not {"peak_bytes", "steady_bytes"} & set(found)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threads": 0}, "threads is 0; it must be at least 1"),
        ({"rounds": 0}, "rounds is 0; it must be at least 1"),
        ({"rounds": 0.5}, "rounds is 0.5; it must be an integer"),
        ({"runs": 4}, "runs is 4; it must be at least 5"),
        ({"timeout_s": 0}, "timeout_s is 0; it must be above 0"),
        ({"dense": 3}, "dense is 3; "),
    ],
)
def test_bad_options(settings, message):
    with pytest.raises(dkm.DkmError) as caught:
        dkm.CostOptions(**settings)
    assert str(caught.value).startswith(message)


def test_the_least_options():
    least = dkm.CostOptions(threads=np.int64(1), rounds=1, runs=5, timeout_s=0.5)
    assert type(least.threads) is int
    assert least == dkm.CostOptions(None, 1, 1, 5, 0.5)


def test_a_dense_file_that_is_missing(path, frozen):
    with pytest.raises(FileNotFoundError, match=r"gone\.onnx: no such file"):
        validate(path, frozen, cost=dkm.CostOptions("gone.onnx"))


def test_a_dense_file_for_another_runtime_is_not_compared(path, frozen, tmp_path):
    (tmp_path / "dense.mlpackage").mkdir()
    options = dkm.CostOptions(tmp_path / "dense.mlpackage", rounds=1, runs=5)
    cost = validate(path, frozen, cost=options).files[0].cost
    assert cost.dense is None
    assert cost.beside.startswith("dense.mlpackage is not run by ONNX Runtime")
