"""What is in a golden bundle, entry by entry, and what is refused before any is written."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.formats.interface import Feature, Interface
from dkm_deploy.validation.golden.bundle import read_bundle
from dkm_deploy.validation.measures.palette_statistics import recipe_of
from dkm_deploy.validation.provenance import provenance

X = torch.arange(8.0).reshape(2, 4)


class Two(nn.Module):
    """Two inputs to two outputs, with noise where it is asked for."""

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.noise = nn.Linear(4, 3), noise

    def forward(self, x: torch.Tensor, gain: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.fc(x) * gain + self.noise * torch.rand(1)
        return {"y": y, "doubled": 2 * y}


GIVEN = (X, torch.tensor([[2.0], [3.0]], dtype=torch.bfloat16))


@pytest.fixture(scope="module")
def frozen():
    return dkm.palettize(Two().eval(), dkm.Recipe.uniform(2))


def test_the_manifest_tells_all_that_is_in_the_folder(frozen, tmp_path):
    interface = Interface(".onnx", (Feature("x", "float32", "2 x 4"),), ())
    limits = dkm.Limits(max_bytes=7)
    dkm.write_golden(
        tmp_path / "g",
        reference=frozen,
        inputs=GIVEN,
        original=Two(),
        labels=[[1.0], [2.0]],
        metric="own",
        limits=limits,
        provenance={"commit": "1a2b", "python": "mine"},
        interface=interface,
    )
    text = (tmp_path / "g/bundle.json").read_text("utf-8")
    found = json.loads(text)
    assert text == json.dumps(found, indent=2, sort_keys=True) + "\n"

    def entry(group, place, name, shape, dtype="float32"):
        raw = f"raw/{group}.{place}.bin"
        return {"name": name, "dtype": dtype, "shape": shape, "raw": raw}

    outputs = [("y", [2, 3]), ("doubled", [2, 3])]
    assert found["inputs"] == [
        entry("inputs", 0, "x", [2, 4]),
        entry("inputs", 1, "gain", [2, 1]),
    ]
    for group in ("outputs", "original"):
        assert found[group] == [entry(group, i, *each) for i, each in enumerate(outputs)]
    assert found["labels"] == [entry("labels", 0, "labels", [2, 1], "float64")]
    assert (found["metric"], found["original_bytes"]) == ("own", [60, 30])
    assert found["limits"]["max_bytes"] == 7
    assert found["provenance"] == provenance() | {"commit": "1a2b", "python": "mine"}
    assert found["interface"] == {"suffix": ".onnx", "asked": interface.to_json()}
    assert found["recipe"] == recipe_of(dkm.palettes(frozen), frozen).to_toml()
    assert found["steps"] is None
    tensors = load_file(tmp_path / "g/tensors.safetensors")
    assert tensors["inputs.gain"].tolist() == [[2], [3]]
    assert set(tensors) == {
        *("inputs.x", "inputs.gain", "outputs.y", "outputs.doubled"),
        *("original.y", "original.doubled", "labels"),
    }


def test_what_is_not_given_is_null_or_empty(frozen, tmp_path):
    dkm.write_golden(tmp_path / "g", reference=frozen, inputs={"gain": GIVEN[1], "x": X})
    found = json.loads((tmp_path / "g/bundle.json").read_text())
    assert [found[name] for name in ("original", "labels")] == [[], []]
    assert [found[name] for name in ("metric", "original_bytes", "interface")] == [None] * 3
    assert found["provenance"] == provenance()
    assert [each["name"] for each in found["inputs"]] == ["gain", "x"]
    before = (tmp_path / "g/bundle.json").read_bytes()
    with pytest.raises(FileExistsError):
        dkm.write_golden(tmp_path / "g", reference=frozen, inputs=GIVEN)
    dkm.write_golden(tmp_path / "g", reference=frozen, inputs=GIVEN, force=True)
    assert (tmp_path / "g/bundle.json").read_bytes() != before


def test_values_that_lie_in_another_order_are_written_in_c_order(tmp_path):
    model = Two().eval()
    model.fc.weight = nn.Parameter(torch.arange(12.0).reshape(4, 3).T)
    x = torch.arange(8.0).reshape(4, 2).T
    dkm.write_golden(tmp_path / "g", reference=model, inputs=(x, GIVEN[1]))
    found = read_bundle(tmp_path / "g")
    assert torch.equal(found.inputs["x"], x)
    assert found.dense.tensors["fc.weight"].tolist() == model.fc.weight.tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": 3}, "metric is a int; a bundle holds its name, a str"),
        ({"provenance": [1]}, "provenance is a list; give texts by name"),
        ({"original": 3}, "original is 3; give a torch.nn.Module"),
        ({"reference": 3}, "reference is 3; give a torch.nn.Module"),
        ({"labels": ["a", "b"]}, "labels are <U1; a golden bundle holds numbers"),
        ({"labels": [1]}, "1 labels for 2 inputs"),
        (
            {"labels": [1, 0.5]},
            "labels such as 0.5 are no class numbers: give whole ones, or give metric=",
        ),
        ({"limits": 3}, "limits is 3; give a dkm.Limits"),
        ({"interface": 3}, "interface is 3; give a dkm.Interface"),
        ({"folder": 3}, "folder is 3; give a str or a path"),
        (
            {"reference": Two(noise=1.0)},
            "the reference gives other outputs on a second run: it is random",
        ),
        (
            {"original": Two(noise=1.0)},
            "the original gives other outputs on a second run: it is random",
        ),
        (
            {"reference": Two(noise=float("nan"))},
            "the reference gives no finite value in output 'y', so no file can be compared with it",
        ),
        ({"inputs": (*GIVEN, X)}, "3 inputs given; forward() takes x, gain"),
        (
            {"inputs": dkm.Steps([GIVEN, (X[:1], GIVEN[1][:1])])},
            (
                "step 2 has inputs of other shapes than step 1; "
                "all steps of a golden bundle must have the same shapes"
            ),
        ),
        (
            {"limits": dkm.Limits(outputs={"z": dkm.OutputLimits()})},
            "limits for output 'z'; the outputs are y, doubled",
        ),
    ],
)
def test_what_is_refused(frozen, tmp_path, changes, message):
    right = {"folder": tmp_path / "g", "reference": frozen, "inputs": GIVEN}
    with pytest.raises(dkm.DkmError) as caught:
        dkm.write_golden(**right | changes)
    assert str(caught.value).partition(", as in dkm.write_golden(")[0] == message
    assert list(tmp_path.iterdir()) == []


def test_an_input_without_a_type_of_pytorch_is_refused(tmp_path):
    class Words(nn.Module):
        def forward(self, x: torch.Tensor, words: object) -> torch.Tensor:
            return x

    with pytest.raises(dkm.DkmError) as caught:
        dkm.write_golden(
            tmp_path / "g", reference=Words(), inputs={"x": X, "words": np.array(["a", "b"])}
        )
    assert str(caught.value) == "input 'words' is an array of <U1; a bundle holds numbers"
