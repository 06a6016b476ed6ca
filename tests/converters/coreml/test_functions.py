"""Packages of several functions, as coremltools joins them: read, run and validated one by one."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.cli import main
from tests.formats.mlpackage.packages import join


class Net(nn.Module):
    """Two layers; the second is another one with another seed."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.base = nn.Linear(16, 16)
        torch.manual_seed(seed)
        self.head = nn.Linear(16, 8)

    def forward(self, x):
        return self.head(torch.relu(self.base(x)))


X = torch.rand(2, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def frozen():
    return {name: dkm.palettize(Net(seed).eval(), 2) for name, seed in (("one", 1), ("two", 2))}


@pytest.fixture(scope="module")
def joined(frozen, tmp_path_factory):
    folder = tmp_path_factory.mktemp("joined")
    parts = {
        name: dkm.convert(model, X, folder / f"{name}.mlpackage").path
        for name, model in frozen.items()
    }
    return join(parts, folder / "net.mlpackage")


def test_palettes_of_one_name_are_told_apart_by_their_function(frozen, joined):
    found = dkm.read_palettes(joined)
    names = ["base_weight", "head_weight", "two.head_weight"]
    assert list(found) == names
    heads = [dkm.palettes(frozen[name])["head.weight"].astype("f2") for name in ("one", "two")]
    assert [found[name] for name in names[1:]] == heads


@pytest.mark.parametrize(("name", "function"), [("one", None), ("one", "one"), ("two", "two")])
def test_a_function_is_validated_with_its_own_model(frozen, joined, name, function):
    report = dkm.validate(joined, reference=frozen[name], inputs=X, function=function)
    assert report, report.failed
    checks = {check.name: check for check in report.files[0].checks}
    assert checks["palettes"].reason.startswith("2 of 2 equal bit for bit")
    assert "inputs: 1, outputs: 1" in checks["interface"].reason


def test_another_function_than_that_of_the_model_fails(frozen, joined):
    report = dkm.validate(joined, reference=frozen["one"], inputs=X, function="two")
    told = " ".join(report.failed)
    assert "palettes: head.weight: LUT entries differ" in told or "indices differ" in told
    assert "parity: " in told


def test_a_function_that_is_not_there(frozen, joined, tmp_path):
    with pytest.raises(dkm.DkmError, match="there is no function 'three'; there are one, two"):
        dkm.validate(joined, reference=frozen["one"], inputs=X, function="three")
    path = dkm.convert(frozen["one"], X, tmp_path / "net.onnx").path
    with pytest.raises(dkm.DkmError, match=r"\.onnx files have one function; leave function out"):
        dkm.validate(path, reference=frozen["one"], inputs=X, function="one")


def test_on_the_command_line(frozen, joined, tmp_path, capsys):
    dkm.save(frozen["two"], tmp_path / "two.safetensors")
    save_file({"x": X}, tmp_path / "x.safetensors")
    model = ["--model", "tests.converters.coreml.test_functions:Net"]
    given = ["--weights", f"{tmp_path}/two.safetensors", "--inputs", f"{tmp_path}/x.safetensors"]
    command = ["validate", str(joined), *model, *given]
    assert main([*command, "--function", "two"]) == 0
    assert main([*command, "--function", "one"]) == 1
    capsys.readouterr()
    assert main(["validate", str(joined), "--golden", "none", "--function", "two"]) == 2
    assert "--function cannot be used with --golden" in capsys.readouterr().err
