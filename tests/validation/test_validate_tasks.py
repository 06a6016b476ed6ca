"""What files are asked for: by a model, by an original file, by a golden bundle; rows are stubs."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.formats.interface import Interface
from dkm_deploy.model.metric import accuracy
from dkm_deploy.model.run import run_model
from dkm_deploy.parity.reduced_precision import Arithmetic
from dkm_deploy.validation import validate
from dkm_deploy.validation.check import Check
from dkm_deploy.validation.dense_weights.reference import DenseReference
from dkm_deploy.validation.golden.bundle import Bundle
from dkm_deploy.validation.report import Model
from dkm_deploy.validation.size_budget import Allowance
from dkm_deploy.validation.task import Original

X, LABELS = torch.eye(4), np.arange(4) % 3
BUDGET = dkm.Budget((Allowance("*", 3),))
COST = dkm.CostOptions(rounds=1)
INTERFACE = Interface(".onnx", (), ())


class Net(nn.Module):
    """A palette, a dense weight, and noise where it is asked for."""

    def __init__(self, noise=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.head, self.noise = nn.Linear(4, 8), nn.Linear(8, 3, bias=False), noise

    def forward(self, x):
        scores = self.head(self.first(x))
        return scores + self.noise * torch.rand_like(scores)


@pytest.fixture(scope="module")
def frozen():
    rules = [dkm.Rule("first.*", dkm.PaletteSpec(2))]
    return dkm.palettize(Net().eval(), dkm.Recipe(rules=rules))


@pytest.fixture
def asked(monkeypatch):
    """The task of each file by its name, and what its meter is made of; no file is read."""
    tasks = {}

    def file_row(path, task):
        tasks[path.name] = task
        return Model(path.name, path=str(path))

    @contextmanager
    def meter(*given):
        yield given

    monkeypatch.setattr(validate, "file_row", file_row)
    monkeypatch.setattr(validate, "meter", meter)
    return tasks


@pytest.fixture
def file(tmp_path):
    (tmp_path / "m.onnx").touch()
    return tmp_path / "m.onnx"


class TestByAModel:
    def test_a_file_is_asked_for_all_that_was_given(self, frozen, asked, file):
        original, limits = Net(), dkm.Limits(max_bytes=9)
        given = {"reference": frozen, "original": original, "inputs": X, "labels": LABELS}
        more = {"limits": limits, "interface": INTERFACE, "budget": BUDGET, "cost": COST}
        report = dkm.validate(file, **given, **more, require=["size"])
        task = asked["m.onnx"]
        assert task.model is frozen
        assert (task.inputs is X, task.limits is limits) == (True, True)
        np.testing.assert_array_equal(task.reference["output"], run_model(frozen, X)["output"])
        np.testing.assert_array_equal(
            task.original.outputs["output"], run_model(original, X)["output"]
        )
        count = 4 * 8 + 8 + 8 * 3
        assert (task.original.tensor_bytes, task.original.half_bytes) == (4 * count, 2 * count)
        np.testing.assert_array_equal(task.labels, LABELS)
        assert task.metric is accuracy
        assert task.frozen == dkm.palettes(frozen)
        assert task.dense.tensors.keys() == {"first.bias", "head.weight"}
        assert (task.interface, task.budget) == (INTERFACE, BUDGET)
        assert task.meter == (COST, X, original)
        assert (task.random, task.original.random) == ("", "")
        assert (report.required, report.limits) == (("size",), limits)
        assert len(report.histograms["first.weight"].original) > 0

    def test_without_more_it_is_asked_for_the_reference_alone(self, frozen, asked, file):
        dkm.validate(file, reference=frozen, inputs=X)
        task = asked["m.onnx"]
        assert (task.original, task.labels, task.budget, task.interface) == (None,) * 4
        assert task.limits == dkm.Limits()
        assert task.meter == (None, X, None)

    def test_models_that_are_random_are_told(self, asked, file):
        noisy = Net(noise=1.0)
        dkm.validate(file, reference=noisy, original=noisy, inputs=X)
        task = asked["m.onnx"]
        told = "gives other outputs on a second run: it is random"
        assert (task.random, task.original.random) == (
            f"the reference {told}",
            f"the original {told}",
        )
        random = torch.get_rng_state()
        dkm.validate([], reference=noisy, inputs=X)
        assert torch.equal(torch.get_rng_state(), random)

    def test_a_file_that_cannot_be_read_misses_its_palettes(self, frozen, asked, file, monkeypatch):
        def fails(path, task):
            if path == file:
                raise KeyError("row")
            return Model(path.name, path=str(path))

        other = file.with_name("other.onnx")
        other.touch()
        monkeypatch.setattr(validate, "file_row", fails)
        report = dkm.validate([file, other], reference=frozen, inputs=X)
        assert report.files[0].checks == (Check("palettes", "failed", "KeyError: 'row'"),)
        assert report.files[1].name == "other.onnx"


class TestByAnOriginalFile:
    @pytest.fixture
    def original(self, monkeypatch, tmp_path):
        (tmp_path / "dense.onnx").touch()
        scores = {"y": np.eye(4, 3)}
        before = Original(scores, 40, None)
        monkeypatch.setattr(validate, "original_of", lambda path, inputs, function: before)
        monkeypatch.setattr(validate, "original_row", lambda path, task: Model(f"of {path.name}"))
        monkeypatch.setattr(
            validate, "twin_task", lambda path, original, task: replace(task, random=str(original))
        )
        return tmp_path / "dense.onnx"

    def test_each_file_has_its_own_twin(self, original, asked, file):
        report = dkm.validate(file, original=original, inputs=X)
        task = asked["m.onnx"]
        assert [row.name for row in report.models] == ["of dense.onnx", "m.onnx"]
        assert (task.random, task.model, task.dense, task.frozen) == (str(original), None, None, {})
        assert task.reference is task.original.outputs
        assert task.meter == (None, X, original)
        assert (report.dense, report.recipe, report.histograms) == ({}, "", {})

    def test_a_file_without_a_twin_misses_its_palettes(self, original, asked, file, monkeypatch):
        def fails(path, original, task):
            if path == file:
                raise dkm.DkmError("of another model")
            return task

        other = file.with_name("other.onnx")
        other.touch()
        monkeypatch.setattr(validate, "twin_task", fails)
        report = dkm.validate([file, other], original=original, inputs=X)
        assert report.files[0].checks == (Check("palettes", "failed", "of another model"),)

    def test_beside_a_reference_it_is_no_twin(self, original, asked, file, frozen):
        report = dkm.validate(file, original=original, reference=frozen, inputs=X)
        assert asked["m.onnx"].model is frozen
        assert asked["m.onnx"].random == ""
        assert report.histograms["first.weight"].original == ()

    def test_it_must_be_there(self, asked, file, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"gone\.onnx: no such file or folder$"):
            dkm.validate(file, original=tmp_path / "gone.onnx", inputs=X)


SCORES = {"y": np.eye(4, 3)}
BUNDLE = Bundle(
    inputs={"x": X},
    outputs=SCORES,
    original={"y": np.eye(4, 3)[::-1]},
    labels=LABELS,
    metric=None,
    original_bytes=(40, 20),
    palettes={"w": dkm.Palette(np.zeros(3, np.uint8), np.ones((1, 2, 1), np.float32))},
    limits=dkm.Limits(min_agreement=0.5, max_bytes=9),
    provenance={"commit": "1a2b3c"},
    recipe="a recipe",
    dense=DenseReference({}, {}),
    interface=INTERFACE,
    noise={Arithmetic(): None},
)


class TestByABundle:
    @pytest.fixture
    def replayed(self, monkeypatch, asked, file):
        """The report and the task of a file."""

        def found(bundle=BUNDLE, **how):
            monkeypatch.setattr(validate, "read_bundle", {Path(): bundle}.get)
            report = dkm.validate_golden(file, ".", **how)
            return report, asked["m.onnx"]

        return found

    def test_a_file_is_asked_for_all_that_it_holds(self, replayed):
        report, task = replayed(budget=BUDGET, cost=COST, require=["size"])
        assert task.inputs is BUNDLE.inputs
        assert task.reference == SCORES
        assert task.original == Original(dict(BUNDLE.original), 40, 20)
        assert (task.labels is LABELS, task.metric) == (True, accuracy)
        for name in ("limits", "dense", "interface", "noise"):
            assert getattr(task, name) == getattr(BUNDLE, name)
        assert (task.frozen, task.model, task.budget) == (BUNDLE.palettes, None, BUDGET)
        assert task.meter == (COST, BUNDLE.inputs, None)
        assert report.recipe == "a recipe"
        assert (report.required, report.limits) == (("size",), BUNDLE.limits)
        assert report.provenance["golden: commit"] == "1a2b3c"
        assert "torch" in report.provenance
        assert [each.name for each in report.layers] == list(report.histograms) == ["w"]
        assert (report.samples, report.metric_name) == (4, "top-1 accuracy, %")

    def test_limits_take_the_place_of_its_own_one_by_one(self, replayed):
        _, task = replayed(limits=dkm.Limits(max_bytes=3))
        assert task.limits == dkm.Limits(min_agreement=0.5, max_bytes=3)
        limits = dkm.Limits(outputs={"z": dkm.OutputLimits(min_cosine=1)})
        with pytest.raises(dkm.DkmError, match="output 'z'; the outputs are y$"):
            replayed(limits=limits)

    def test_labels_of_another_metric_wait_for_it(self, replayed):
        other = replace(BUNDLE, metric="mean")
        assert replayed(other)[1].labels is None

        def mean(output, labels):
            return float(output.mean())

        report, task = replayed(other, metric=mean)
        assert (task.labels is LABELS, task.metric, report.metric_name) == (True, mean, "mean")

    @pytest.mark.parametrize("changes", [{"original": {}}, {"original_bytes": None}])
    def test_half_an_original_is_none(self, replayed, changes):
        assert replayed(replace(BUNDLE, **changes))[1].original is None
