"""Plans for Core ML packages, by the bytes that palettize_file then writes."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

import dkm_deploy as dkm
from dkm_deploy.cli import main
from tests.converters.coreml.rewriting.packages import run, two_layers, values

QUIET = Console(file=io.StringIO())
SPECS = [dkm.PaletteSpec(2), dkm.PaletteSpec(4), dkm.PaletteSpec(2, group_size=8)]
X = values(8, 64, seed=9)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return two_layers(tmp_path_factory.mktemp("net") / "net.mlpackage", "iOS18")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A cache that tests share."""
    return tmp_path_factory.mktemp("cache")


def _plan(package, budget, calibration=X, **more):
    how = {"candidates": SPECS, "console": QUIET} | more
    return dkm.plan(package, budget, calibration=calibration, **how)


@pytest.mark.parametrize("budget", [6_300, 7_500])
def test_the_package_fits_and_was_predicted(package, kept, tmp_path, budget):
    found = _plan(package, budget, cache=kept)
    written = dkm.palettize_file(package, tmp_path / "small.mlpackage", found)
    assert written.bytes_after == found.size_bytes["coreml"] <= budget
    assert abs(found.predicted_bytes - written.bytes_after) <= 0.02 * written.bytes_after
    chosen = {made.name: made.spec.bits for made in found.decisions if made.spec is not None}
    assert {name: p.bits for name, p in dkm.read_palettes(written).items()} == chosen


def test_the_loss_is_that_of_the_weight_alone(package, kept, tmp_path):
    found = _plan(package, 6_300, cache=kept)
    made = next(made for made in found.decisions if made.name == "first_weight")
    recipe = dkm.Recipe(rules=[dkm.Rule("first_weight", spec=made.spec)])
    one = dkm.palettize_file(package, tmp_path / "one.mlpackage", recipe).path
    pairs = [(run(package, X[i : i + 2]), run(one, X[i : i + 2])) for i in range(0, 8, 2)]
    expected, actual = (np.concatenate(each) for each in zip(*pairs, strict=True))
    loss = np.square(actual - expected).sum() / np.square(expected).sum()
    assert made.loss == pytest.approx(loss, rel=1e-4)


def test_another_package_is_measured_anew(package, kept, tmp_path):
    other = two_layers(tmp_path / "net.mlpackage", "iOS18", np.float16)
    half, full = (_plan(path, 10**6, cache=kept, candidates=[2]) for path in (other, package))
    assert half.size_bytes["coreml"] < full.size_bytes["coreml"]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"targets": "onnx"}, "it can become coreml alone; onnx needs the PyTorch model"),
        ({"calibration": values(3, 64)}, "3 samples do not split into batches of 2"),
        ({"calibration": [(X, [1, 2])]}, "2 labels for 8 inputs"),
        ({"candidates": [dkm.PaletteSpec(2, cluster_dim=7)]}, "none of 1 candidates fits any"),
        ({"budget": 900}, "budget of 900 bytes cannot be met"),
    ],
)
def test_wrong_use(package, kept, how, message):
    with pytest.raises(dkm.DkmError, match=message):
        _plan(package, **{"budget": 7_000, "cache": kept} | how)


def test_on_the_command_line(package, tmp_path, capsys):
    save_file({"x": torch.from_numpy(X)}, tmp_path / "x.safetensors")
    recipe, small = str(tmp_path / "r.toml"), str(tmp_path / "small.mlpackage")
    given = ["--calibration", str(tmp_path / "x.safetensors"), "--bits", "2", "-o", recipe]
    assert main(["plan", str(package), "--budget", "7kB", *given]) == 0
    assert main(["palettize", str(package), "--recipe", recipe, "-o", small]) == 0
    assert dkm.size_breakdown(small).total_bytes <= 7_000
