"""What a report says about models, metric and machine, and what must be given for one."""

from __future__ import annotations

import importlib.metadata
import platform

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.validation import provenance, validate
from dkm_deploy.validation.measures.top1_agreement import Flip
from dkm_deploy.validation.report import Model

X = torch.eye(4)


class Net(nn.Module):
    """Scores in the type of the weights; what it need not compute with has another one."""

    def __init__(self, dtype=torch.float32, other=torch.float32) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.head = nn.Linear(4, 8), nn.Linear(8, 3)
        self.to(dtype)
        self.gain = nn.Parameter(torch.ones(3, dtype=other))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.first(x.to(self.head.weight.dtype)))


@pytest.fixture(scope="module")
def frozen():
    rules = [dkm.Rule("first.*", dkm.PaletteSpec(2))]
    return dkm.palettize(Net().eval(), dkm.Recipe(rules=rules))


@pytest.mark.parametrize(
    ("types", "name"),
    [
        ((torch.float32, torch.float32), "fp32"),
        ((torch.float64, torch.float64), "fp64"),
        ((torch.bfloat16, torch.bfloat16), "bf16"),
        ((torch.float32, torch.float16), "fp16+fp32"),
    ],
)
def test_an_original_is_named_by_its_precision(frozen, types, name):
    report = dkm.validate([], reference=frozen, original=Net(*types), inputs=X)
    assert [row.name for row in report.models] == [f"original ({name})", "frozen (hard)"]


def test_a_report_without_files_tells_of_the_models(frozen):
    report = dkm.validate([], reference=frozen, inputs=X, also={"other": Net()})
    assert [row.name for row in report.models] == ["other", "frozen (hard)"]
    assert all(row.runtime == f"PyTorch {torch.__version__}" for row in report.models)
    rank = "rank 1: biases and norms stay dense"
    assert {name: report.dense[name] for name in ("gain", "first.bias", "head.weight")} == {
        "gain": rank,
        "first.bias": rank,
        "head.weight": "shape (3, 8): left dense by the recipe",
    }
    assert list(report.histograms) == ["first.weight"]
    assert (report.samples, report.metric_name, report.limits) == (4, None, dkm.Limits())
    assert (report.required, report.pictures) == (False, {})


def test_the_metric_is_named(frozen):
    def name(labels, metric=None):
        how = {"reference": frozen, "inputs": X, "labels": labels, "metric": metric}
        return dkm.validate([], **how).metric_name

    class Mean:
        def __call__(self, output, labels):
            return float(output.mean())

    assert name(np.arange(4) % 3) == "top-1 accuracy, %"
    assert name(np.ones(4), Mean()) == "metric"
    assert name(None) is None


def test_the_first_20_flips_of_each_file_are_shown():
    flips = tuple(Flip(i, 0, 1, None) for i in range(30))
    rows = [Model("one bit", flips=flips), Model("m", path="m", flips=flips[5:])]
    assert validate._flipped_inputs(rows) == list(range(5, 25))


def test_versions_and_machine_are_told(monkeypatch):
    found = provenance.provenance()
    assert found["python"] == platform.python_version()
    assert found["machine"] == platform.platform()
    packages = ("dkm-deploy", "torch", "numpy", "onnx", "onnxruntime", "coremltools")
    assert list(found) == ["python", "machine", *packages]
    assert found["torch"] == importlib.metadata.version("torch")

    def absent(package):
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(provenance, "version", absent)
    assert {provenance.provenance()[name] for name in packages} == {"not installed"}


@pytest.mark.parametrize("original", [None, Net()])
def test_there_must_be_something_to_compare_with(original):
    with pytest.raises(dkm.DkmError) as caught:
        dkm.validate([], original=original, inputs=X)
    told = "give reference=, or original= as the file that was palettized"
    assert str(caught.value).partition(", as in")[0] == told
