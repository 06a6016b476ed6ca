"""Arguments of another kind than a validation takes are refused before anything is run."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.formats.interface import Interface
from dkm_deploy.validation.request import check_asked, original_given
from dkm_deploy.validation.size_budget import Allowance

WRONG = {
    "metric": "metric is 3; it must be a function",
    "limits": "limits is 3; give a dkm.Limits",
    "budget": "budget is 3; give a dkm.Budget",
    "cost": "cost is 3; give a dkm.CostOptions",
    "interface": "interface is 3; give a dkm.Interface",
    "also": "also is 3; give models by name",
    "function": "function is 3; give the name of one",
}
"""What is said of a 3 in place of each argument."""


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        *(({name: 3}, message) for name, message in WRONG.items()),
        ({"also": {"small": 3}}, "also: small is 3; give a torch.nn.Module"),
    ],
)
def test_one_line_says_what_is_wrong(asked, message):
    with pytest.raises(dkm.DkmError) as caught:
        check_asked(**{"metric": None} | asked)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("function", "given", "message"),
    [
        *((dkm.validate, {name: 3}, message) for name, message in WRONG.items()),
        *((dkm.validate_golden, {n: 3}, WRONG[n]) for n in ("metric", "limits", "budget", "cost")),
        (dkm.validate_device_outputs, {"metric": 3}, WRONG["metric"]),
        (dkm.validate, {"reference": 3}, "reference is 3; give a torch.nn.Module"),
        (dkm.validate, {"files": 3}, "files is 3; give a path or a list of paths"),
        (dkm.validate_golden, {"files": 3}, "files is 3; give a path or a list of paths"),
        (
            dkm.validate_device_outputs,
            {"folders": 3},
            "folders is 3; give a path or a list of paths",
        ),
        (dkm.validate_golden, {"golden": 3}, "golden is 3; give a str or a path"),
        (dkm.validate_device_outputs, {"golden": 3}, "golden is 3; give a str or a path"),
    ],
)
def test_every_way_of_asking_says_so_before_anything_is_read(function, given, message):
    right = {
        dkm.validate: {"files": [], "inputs": None},
        dkm.validate_golden: {"files": [], "golden": "."},
        dkm.validate_device_outputs: {"folders": [], "golden": "."},
    }
    with pytest.raises(dkm.DkmError) as caught:
        function(**right[function] | given)
    assert str(caught.value).startswith(f"{message}, as in dkm.{function.__name__}(")


def test_what_a_validation_takes_is_taken():
    check_asked(None)
    model, budget = nn.Linear(2, 2), dkm.Budget((Allowance("*", 3),))
    check_asked(
        print, dkm.Limits(), budget, dkm.CostOptions(), {"m": model}, Interface(".onnx", (), ())
    )


def test_an_original_is_a_model_or_a_path():
    model = nn.Linear(2, 2)
    assert original_given(None) is None
    assert original_given(model) is model
    assert original_given("a/m.pt2") == original_given(Path("a/m.pt2")) == Path("a/m.pt2")
    with pytest.raises(dkm.DkmError, match=r"^original is 3; give a torch\.nn\.Module$"):
        original_given(3)
    with pytest.raises(dkm.DkmError, match=r"^original is "):
        original_given("")
