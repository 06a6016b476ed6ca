"""A model that differs from itself on a second run is called random, not wrong."""

from __future__ import annotations

import random

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

import dkm_deploy as dkm
from dkm_deploy.parity.repeatability import outputs_repeat, randomness

X = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Two layers with something between them."""

    def __init__(self, between=lambda x: x) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.drop, self.head = nn.Linear(8, 16), nn.Dropout(), nn.Linear(16, 4)
        self.between = between

    def forward(self, x):
        return self.head(self.drop(self.between(torch.relu(self.first(x)))))


BETWEEN = [
    lambda x: functional.dropout(x, training=True),
    lambda x: x + torch.rand(()),
    lambda x: x * float(np.random.rand()),  # noqa: NPY002
    lambda x: x if random.random() < 0.5 else -x,  # noqa: S311
    lambda x: x * (torch.rand(len(x), 1) > 0.1),  # whole samples, and few of them
]


@pytest.mark.parametrize("between", BETWEEN)
def test_what_is_drawn_anew_is_found_with_its_place(between):
    model = Net(between).eval()
    state = torch.get_rng_state(), random.getstate()
    told = randomness("the model", model, X)
    assert told == (
        "the model gives other outputs on a second run: it is random, first seen in drop"
    )
    assert torch.equal(torch.get_rng_state(), state[0])
    assert random.getstate() == state[1]


def test_a_model_that_gives_the_same_is_not_random():
    assert randomness("it", Net().eval(), X) == ""

    class Fixed(nn.Module):  # takes all samples or none
        def forward(self, x):
            return x.reshape(40, 8)

    assert randomness("it", Fixed(), X) == ""


def test_a_state_is_no_chance():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return x * self.calls

    assert randomness("it", Counts().eval(), X) == ""


def test_rounding_is_no_chance():
    one = {"y": np.array([1.0, 100.0, np.nan, np.inf], np.float32)}
    for change, alike in ((1 + 1e-7, True), (1 + 1e-4, False)):
        assert outputs_repeat(one, {"y": one["y"] * np.float32(change)}) == alike
    assert not outputs_repeat(one, {"z": one["y"]})
    assert not outputs_repeat(one, {"y": one["y"][:2]})
    assert not outputs_repeat(one, {"y": np.where(np.isnan(one["y"]), 1, one["y"])})


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A right file, and one whose graph draws a number at each run."""
    folder = tmp_path_factory.mktemp("random")
    frozen = dkm.palettize(Net().eval(), dkm.Recipe.uniform(4))
    right = dkm.convert(frozen, X[:1], folder / "right.onnx").path
    model = onnx.load(right)
    last = model.graph.node[-1]
    made, last.output[0] = last.output[0], "before"
    draw = onnx.helper.make_node("RandomUniformLike", ["before"], ["draw"])
    add = onnx.helper.make_node("Add", ["before", "draw"], [made])
    model.graph.node.extend([draw, add])
    onnx.save(model, folder / "random.onnx")
    return frozen, right, folder / "random.onnx"


def _checks(report, place=0):
    return {check.name: (check.status, check.reason) for check in report.files[place].checks}


def test_a_random_reference_is_not_the_fault_of_a_file(files):
    reference = dkm.palettize(Net(BETWEEN[0]).eval(), dkm.Recipe.uniform(4))
    found = dkm.validate([files[1]], reference=reference, inputs=X)
    status, reason = _checks(found)["parity"]
    assert (status, reason.split(":")[0]) == (
        "skipped",
        "the reference gives other outputs on a second run",
    )
    assert _checks(found)["palettes"][0] == "passed"
    assert not found


def test_nothing_is_compared_with_a_random_original(files, tmp_path):
    frozen, right, _ = files
    original = Net(BETWEEN[0]).eval()
    labels = Net()(X).argmax(1)
    limits = dkm.Limits(max_metric_loss=1, min_agreement=0.5)
    how = {"reference": frozen, "original": original, "inputs": X, "labels": labels}
    found = dkm.validate([right], **how, limits=limits)
    assert _checks(found)["parity"][0] == "passed"
    for name in ("metric", "agreement"):
        status, reason = _checks(found)[name]
        assert (status, reason[:17]) == ("skipped", "the original give")
    with pytest.raises(dkm.DkmError, match="the original gives other outputs on a second run"):
        dkm.write_golden(tmp_path / "g", **how)
    with pytest.raises(dkm.DkmError, match="the reference gives other outputs on a second run"):
        dkm.write_golden(tmp_path / "g", reference=original, inputs=X)


def test_a_random_file_is_told(files):
    frozen, right, drawn = files
    found = dkm.validate([right, drawn], reference=frozen, inputs=X)
    assert _checks(found)["parity"][0] == "passed"
    status, reason = _checks(found, 1)["parity"]
    assert status == "failed"
    assert reason.startswith("the file gives other outputs on a second run: it is random; ")
    assert "first error" not in reason
