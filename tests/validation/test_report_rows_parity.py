"""What the check of parity becomes of one file: by which noise, in which order, and located where.

Files are names alone: what runs, judges and locates them is the test's own.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.model.metric import accuracy
from dkm_deploy.parity.reduced_precision import Arithmetic
from dkm_deploy.parity.slice_comparison import OutputJudge
from dkm_deploy.validation import report_rows
from dkm_deploy.validation.check import Check
from dkm_deploy.validation.locate.locate import Divergence, describe_divergence
from dkm_deploy.validation.task import Task

X = np.arange(1.0, 13).reshape(4, 3).astype(np.float32)
MODEL = nn.Identity()
TASK = Task(X, {"y": X, "z": -X}, None, None, accuracy, dkm.Limits(), {}, MODEL)
RIGHT, WRONG = {"y": X, "z": -X}, {"y": X, "z": -2 * X}
PLACE = Divergence("head", "output", "v", 0.5, 0.1, 1, 2)
FILE = (Path("m.x"), object(), {"w": None})


class Session:
    """A loaded file that doubles its input."""

    def __init__(self, states=(), scale=lambda: 2):
        self.input_shapes, self.states, self.scale = {"x": (None, 3)}, states, scale

    def run(self, inputs, state=None):
        return {"z": self.scale() * inputs["x"]}

    def make_state(self):
        return None


@pytest.fixture
def asked():
    """What the functions that judge and locate were given, by their names."""
    return {}


@pytest.fixture
def parity(monkeypatch, asked):
    """The check of outputs, and where they go wrong; weights are float16 if ``stored``."""

    def found(outputs=RIGHT, task=TASK, *, stored=False, reason="", **ran):
        ran = report_rows._Ran(outputs, "a runtime", reason, **ran)

        def judge_of(*given, half_sums):
            asked["judge"] = (*given, half_sums)
            return OutputJudge(task.reference, None, given[1].coarsest)

        def stores_half(*given):
            asked["half"] = given
            return stored

        monkeypatch.setattr(report_rows, "judge_of", judge_of)
        monkeypatch.setattr(report_rows, "stores_half", stores_half)
        compared = report_rows._compare_outputs(ran.outputs, ran.reason, task)
        return report_rows._parity(FILE, ran, compared, task)

    def with_float32(check, *given):
        asked["float32"] = given
        return replace(check, reason=f"{check.reason}; float32")

    def locate(*given, function):
        asked["locate"] = given
        return PLACE

    monkeypatch.setattr(report_rows, "with_float32", with_float32)
    monkeypatch.setattr(report_rows, "locate", locate)
    return found


def test_nothing_is_compared_with_a_random_reference(parity):
    found = parity(task=replace(TASK, random="it is random"))
    assert found == (Check("parity", "skipped", "it is random", blocks=True), None)


@pytest.mark.parametrize(
    ("half", "stored", "native", "numbers", "half_sums"),
    [
        (None, False, True, Arithmetic("float32", "float32"), False),
        (None, True, False, Arithmetic("float16", "float16"), False),
        (None, True, True, Arithmetic("float16", "float16"), True),
        (False, True, True, Arithmetic("float32", "float16"), False),
        (True, False, True, Arithmetic("float16", "float16"), True),
    ],
)
def test_a_file_is_judged_in_the_numbers_it_computes_and_stores(
    parity, asked, half, stored, native, numbers, half_sums
):
    check, place = parity(stored=stored, half=half, native=native)
    assert (check.status, place) == ("passed", None)
    assert asked["half"] == FILE
    path, judged, outputs, task, sums = asked["judge"]
    assert (path, judged, task, sums) == (Path("m.x"), numbers, TASK, half_sums)
    assert list(outputs) == ["y", "z"]
    in_half = numbers.compute == "float16"
    assert asked.get("float32") == ((Path("m.x"), TASK) if in_half else None)
    assert check.reason.endswith("; float32") == in_half


def test_noise_that_cannot_be_measured_is_told(parity, monkeypatch):
    def fails(*_):
        raise KeyError("op")

    monkeypatch.setattr(report_rows, "arithmetic", fails)
    reason = "the model's own noise cannot be measured: KeyError: 'op'"
    assert parity() == (Check("parity", "skipped", reason, blocks=True), None)


@pytest.mark.parametrize("refused", [False, True])
def test_a_file_that_its_runtime_refuses_blocks(parity, asked, refused):
    found = parity(None, reason="no op", refused=refused, half=True)
    assert found == (Check("parity", "skipped", "no op", blocks=refused), None)
    assert not asked.keys() & {"judge", "float32", "locate"}


def test_outputs_that_cannot_be_right_fail(parity, asked):
    assert parity({}, reason="label 3") == (Check("parity", "failed", "label 3"), None)
    assert not asked.keys() & {"judge", "locate"}
    check, place = parity({"y": X, "z": X[:, :2]})
    assert (check.status, place) == ("failed", PLACE)
    assert check.reason.startswith("shape (4, 2) in place of (4, 3); first error in head")
    assert asked["locate"][-1] == 0  # nothing tells how far off is right


def test_values_that_are_not_compared_are_told(parity):
    reference = {"y": np.where(X == 1, np.nan, X), "z": -X}
    check, place = parity(dict(reference), replace(TASK, reference=reference))
    assert (check.status, place) == ("passed", None)
    assert check.reason.endswith("; NaN or infinite in PyTorch too, and so not compared: 1 of 24")


def test_a_miss_is_located(parity, asked):
    check, place = parity(WRONG)
    assert (check.status, place) == ("failed", PLACE)
    assert check.reason.endswith(f"; {describe_divergence(PLACE)}")
    path, model, inputs, (outputs, reference), limit = asked["locate"]
    assert (path, model, limit) == (Path("m.x"), MODEL, 1e-4)  # of the first output
    assert inputs is X
    assert (outputs["z"] is WRONG["z"], reference) == (True, TASK.reference)


def test_a_miss_that_cannot_be_located_tells_why(parity, monkeypatch):
    def fails(*_, **__):
        raise KeyError("layer")

    check, place = parity(WRONG, replace(TASK, model=None))
    told = "layers are compared with those of a PyTorch model, which is not given"
    assert check.reason.endswith(f"; not located: {told}")
    monkeypatch.setattr(report_rows, "locate", fails)
    check, place = parity(WRONG)
    assert (check.status, place) == ("failed", None)
    assert check.reason.endswith("; not located: KeyError: 'layer'")


def test_swapped_outputs_are_told_and_not_located(parity, asked):
    check, place = parity({"y": -X, "z": X})
    assert place is None
    told = "outputs are swapped: 'y' has the values of 'z', 'z' has the values of 'y'"
    assert check.reason.endswith(f"; {told}")
    assert "locate" not in asked


def test_what_float32_alone_shows_is_not_located(parity, asked, monkeypatch):
    missed = Check("parity", "failed", "hidden")
    monkeypatch.setattr(report_rows, "with_float32", lambda *_: missed)
    assert parity(stored=True, session=Session()) == (missed, None)
    assert "locate" not in asked


def test_a_miss_of_a_random_file_is_chance(parity):
    tossed = count(2)
    check, place = parity(WRONG, session=Session(scale=lambda: next(tossed)))
    assert (check.status, place) == ("failed", None)
    told = "the file gives other outputs on a second run: it is random; z: relative error"
    assert check.reason.startswith(told)
    check, place = parity(WRONG, session=Session())
    assert (check.reason.startswith("z: relative error"), place) == (True, PLACE)


def test_a_file_with_state_must_be_run_for_several_steps(parity):
    check, place = parity(session=Session(states=("keys",)))
    assert (check.status, check.blocks, place) == ("skipped", True, None)
    assert "and the file keeps keys; " in check.reason


def test_the_step_that_is_first_off_is_named(parity):
    steps = dkm.Steps([torch.from_numpy(X[:2]), torch.from_numpy(X[2:])])
    off = {"y": X, "z": np.concatenate([-X[:2], -2 * X[2:]])}
    check, _ = parity(off, replace(TASK, inputs=steps))
    assert "; first error at step 2 of 2" in check.reason
    check, _ = parity(None, replace(TASK, inputs=steps), reason="no op")
    assert check.reason == "no op"
