"""One file's failure never ends the others, and never passes."""

from __future__ import annotations

import io

import onnx
import pytest
import torch
from rich.console import Console
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.cli import main
from dkm_deploy.report.terminal.report import show
from dkm_deploy.runtimes.onnx_runtime.runtime import OnnxRuntime
from dkm_deploy.validation import report_rows
from dkm_deploy.validation.checks import model_noise
from tests.models import MIXED, images, small_net


@pytest.fixture(scope="module")
def frozen():
    return dkm.palettize(small_net(), MIXED)


@pytest.fixture(scope="module")
def good(frozen, tmp_path_factory):
    return dkm.convert(frozen, images(1), tmp_path_factory.mktemp("each") / "good.onnx").path


@pytest.fixture(scope="module")
def golden(frozen, tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden") / "golden"
    dkm.write_golden(folder, reference=frozen, inputs=images(2), original=small_net())
    return folder


def _broken(good, kind):
    """A file beside ``good`` with one fault."""
    path = good.with_name(f"{kind}.onnx")
    model = onnx.load(good)
    if kind == "truncated":
        path.write_bytes(good.read_bytes()[:1000])
        return path
    if kind == "unknown":
        next(n for n in model.graph.node if n.op_type == "Relu").op_type = "NoSuchOperation"
    elif kind == "renamed":
        more = onnx.helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, [1])
        model.graph.input.append(more)
    elif kind == "fixed":
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3
    onnx.save(model, path)
    return path


def _checks(model):
    return {check.name: check.status for check in model.checks}


RIGHT = dict.fromkeys(("palettes", "dense", "interface", "parity"), "passed")
OTHER = RIGHT | {"interface": "failed"}


@pytest.mark.parametrize(
    ("kind", "checks", "reason"),
    [
        ("truncated", {"palettes": "failed"}, "truncated.onnx"),
        ("unknown", RIGHT | {"parity": "skipped"}, "NoSuchOperation"),
        ("renamed", RIGHT | {"interface": "failed", "parity": "skipped"}, "the file takes"),
        (
            "fixed",
            RIGHT | {"interface": "failed", "parity": "skipped"},
            "2 samples do not split into batches of 3",
        ),
    ],
)
@pytest.mark.parametrize("replayed", [False, True])
def test_a_file_that_fails_is_a_row(frozen, good, golden, kind, checks, reason, replayed):
    files = [_broken(good, kind), good]
    if replayed:
        report = dkm.validate_golden(files, golden)
    else:
        report = dkm.validate(files, reference=frozen, inputs=images(2))
    broken, right = report.files
    assert _checks(right) == RIGHT
    assert _checks(broken) == checks
    assert reason in broken.checks[-1].reason
    assert not report
    assert reason in "; ".join(report.failed + report.lacking)
    console = Console(file=io.StringIO(), width=200)
    show(report.to_dict(), console)
    assert "Passed" not in console.file.getvalue()


def test_what_only_fails_to_run_does_not_pass_alone(frozen, good):
    report = dkm.validate([_broken(good, "unknown")], reference=frozen, inputs=images(2))
    assert _checks(report.files[0]) == RIGHT | {"parity": "skipped"}
    assert not report


def test_nan_is_compared_with_nothing(frozen, good, tmp_path):
    """Palettes alone are no proof, and a bundle of NaN proves nothing."""
    how = {"reference": frozen, "inputs": images(2) * torch.nan, "original": small_net()}
    limits = dkm.Limits(max_metric_loss=1, min_agreement=0.5)
    report = dkm.validate([good], **how, labels=[0, 0], limits=limits)
    assert _checks(report.files[0]) == {
        "palettes": "passed",
        "dense": "passed",
        "interface": "passed",
        "parity": "skipped",
        "metric": "skipped",
        "agreement": "skipped",
    }
    assert len(report.lacking) == 3
    assert not dkm.validate([good], **how)
    with pytest.raises(dkm.DkmError, match="no finite value in output 'output'.*: input x holds"):
        dkm.write_golden(tmp_path / "g", **(how | {"inputs": {"x": how["inputs"]}}))


def test_some_nan_is_told(frozen, good):
    inputs = images(4)
    inputs[1, 0, 0, 0] = torch.nan
    report = dkm.validate([good], reference=frozen, inputs=inputs)
    assert report
    told = "; NaN or infinite in PyTorch too, and so not compared: 5 of 20"
    assert next(c for c in report.files[0].checks if c.name == "parity").reason.endswith(told)


def test_a_model_whose_noise_cannot_be_measured_is_not_the_fault_of_a_file(
    frozen, good, monkeypatch
):
    def crash(*_):
        raise RuntimeError("no such op in half precision")

    monkeypatch.setattr(model_noise, "measure_noise", crash)
    report = dkm.validate([good], reference=frozen, inputs=images(2))
    assert not report
    assert _checks(report.files[0]) == RIGHT | {"parity": "skipped"}
    assert "own noise cannot be measured: RuntimeError: no such op" in report.lacking[0]


@pytest.mark.parametrize("name", ["dense", "interface"])
def test_a_comparison_that_crashes_is_not_the_fault_of_a_file(frozen, good, monkeypatch, name):
    def crash(*_):
        raise IndexError("no such dimension")

    monkeypatch.setattr(report_rows, f"{name}_check", crash)
    report = dkm.validate([good], reference=frozen, inputs=images(2))
    assert not report
    assert _checks(report.files[0]) == RIGHT | {name: "skipped"}
    assert report.lacking == (f"good.onnx: {name}: it failed: IndexError: no such dimension",)


def test_inputs_that_fit_the_model_but_not_the_file(frozen, good):
    report = dkm.validate([good], reference=frozen, inputs=torch.ones(2, 3, 16, 16))
    assert "shape (1, 3, 16, 16); the file takes" in report.lacking[0]


@pytest.mark.parametrize("place", ["load", "read_palettes"])
def test_a_crash_in_the_code_of_a_reader_or_runtime_is_told(frozen, good, monkeypatch, place):
    bad = good.with_name("crash.onnx")
    bad.write_bytes(good.read_bytes())
    owner = OnnxRuntime if place == "load" else type(report_rows.function_reader(good, None))
    usual = getattr(owner, place)

    def crash(self, path):
        if path == bad:
            raise RuntimeError("a table has no row 7")
        return usual(self, path)

    monkeypatch.setattr(owner, place, crash)
    report = dkm.validate([bad, good], reference=frozen, inputs=images(2))
    crashed, right = report.files
    assert _checks(right) == RIGHT
    assert crashed.checks[-1].reason.endswith("RuntimeError: a table has no row 7")
    assert not report
    if place == "read_palettes":
        with pytest.raises(dkm.DkmError, match=r"crash\.onnx cannot be checked: RuntimeError"):
            dkm.validate([bad], reference=frozen, inputs=images(2))


def test_where_nothing_can_be_read_or_found_it_is_bad_input(frozen, good):
    truncated = _broken(good, "truncated")
    for files in ([truncated], [truncated, truncated]):
        with pytest.raises(dkm.DkmError, match=r"truncated\.onnx"):
            dkm.validate(files, reference=frozen, inputs=images(2))
    with pytest.raises(FileNotFoundError, match=r"none\.onnx"):
        dkm.validate([good, good.with_name("none.onnx")], reference=frozen, inputs=images(2))
    other = good.with_name("notes.txt")
    other.write_text("not a model")
    with pytest.raises(dkm.DkmError, match=r"\.txt"):
        dkm.validate([good, other], reference=frozen, inputs=images(2))


def test_exit_codes(frozen, good, golden, capsys):
    """1 where something was judged, 2 where nothing could be."""
    truncated = str(_broken(good, "truncated"))
    assert main(["validate", str(good), "--golden", str(golden)]) == 0
    assert main(["validate", truncated, str(good), "--golden", str(golden)]) == 1
    assert main(["validate", truncated, "--golden", str(golden)]) == 2
    assert main(["validate", str(good), f"{good}.none", "--golden", str(golden)]) == 2
    capsys.readouterr()


def test_a_further_model_that_does_not_run_is_a_row(frozen, good):
    also = {"other input": nn.Linear(7, 5).eval(), "two outputs": _Two().eval()}
    report = dkm.validate([good], reference=frozen, inputs=images(2), also=also)
    assert report
    assert [_checks(model) for model in report.models[:2]] == [{"parity": "skipped"}] * 2
    console = Console(file=io.StringIO(), width=200)
    show(report.to_dict(), console)
    assert "does not run on the inputs" in console.file.getvalue()


class _Two(nn.Module):
    def forward(self, x):
        return x, x


def test_a_measurement_that_crashes_is_skipped(frozen, good, monkeypatch):
    def crash(*_):
        raise ZeroDivisionError("no time passed")

    monkeypatch.setattr("dkm_deploy.validation.measures.cost_measure._child", crash)
    how = {"cost": dkm.CostOptions(), "limits": dkm.Limits(max_latency_ratio=1)}
    report = dkm.validate([good], reference=frozen, inputs=images(2), **how)
    assert _checks(report.files[0]) == RIGHT | {"cost": "skipped"}
    assert report.skipped[0].endswith("ZeroDivisionError: no time passed")
