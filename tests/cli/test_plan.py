"""``dkm-deploy plan``: of Python models and of files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.torch import save_file

import dkm_deploy as dkm
from tests.command import fails, run
from tests.converters.onnx.models import save
from tests.models import images, wide_net
from tests.planning.onnx_net import net, rows


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """The command line that plans a WideNet for ONNX, up to its budget."""
    folder = tmp_path_factory.mktemp("wide")
    save_file(wide_net().state_dict(), folder / "wide.safetensors")
    labels = wide_net()(images(8)).argmax(1)
    save_file({"x": images(8), "labels": labels}, folder / "inputs.safetensors")
    weights, inputs = folder / "wide.safetensors", folder / "inputs.safetensors"
    source = ["plan", "tests.models:wide_net", "--weights", weights, "--calibration", inputs]
    return [*source, "--target", "onnx", "--bits", "2", "--cache", f"{folder}/cache", "--budget"]


@pytest.fixture(scope="module")
def onnx(tmp_path_factory):
    """The command line that plans an ONNX file, up to its budget; and the file."""
    folder = tmp_path_factory.mktemp("onnx")
    path = save(folder / "net.onnx", net())
    x = rows(16)
    save_file({"x": x, "labels": x.sum(1).long()}, folder / "inputs.safetensors")
    source = ["plan", path, "--calibration", folder / "inputs.safetensors"]
    return [*source, "--bits", "2", "--bits", "4", "--cache", folder / "cache", "--budget"], path


def negative_spread(outputs, labels):
    """A metric."""
    return -float(np.std(outputs)) - len(labels)


def broken(outputs, labels):
    """A metric that fails."""
    raise KeyError(len(labels))


def test_plan_writes_a_recipe_that_fits(wide, tmp_path, capsys):
    out, svg, figures = tmp_path / "r.toml", tmp_path / "r.svg", tmp_path / "r.json"
    assert run(*wide, "40kB", "-o", out, "--svg", svg, "--json", figures) == 0
    assert "% of the budget" in capsys.readouterr().out
    palettized = dkm.palettize(wide_net(), dkm.Recipe.load(out))
    file = dkm.convert(palettized, images(1), tmp_path / "m.onnx")
    plan = json.loads(figures.read_text())
    assert plan["size_bytes"] == {"onnx": file.size_bytes}
    assert file.size_bytes <= 40_000
    assert f"<title>{plan['predicted_bytes']:,} bytes, loss " in svg.read_text()


def test_plan_for_too_few_bytes(wide, tmp_path, capsys):
    assert run(*wide, "100", "-o", tmp_path / "r.toml") == 2
    assert "cannot be met: the smallest file" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_plan_by_a_metric(wide, tmp_path):
    metric = ["--metric", "tests.cli.test_plan:negative_spread"]
    assert run(*wide, "40kB", *metric, "-o", tmp_path / "r.toml", "--json", tmp_path / "j") == 0
    assert run(*wide, "40kB", "-o", tmp_path / "r2.toml", "--json", tmp_path / "j2") == 0
    points, error = (json.loads((tmp_path / name).read_text())["loss"] for name in ("j", "j2"))
    assert points != error


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("accuracy", "metric 'accuracy': write it as package.module:callable"),
        ("tests.cli.test_plan:none", "metric 'tests.cli.test_plan:none' cannot be imported"),
        ("tests.nowhere:accuracy", "No module named 'tests.nowhere'"),
        ("tests.cli.test_plan:json", "is a module; it must be a callable"),
        (
            "tests.cli.test_plan:broken",
            "fails on outputs of shape (8, 10) and labels",
        ),
    ],
)
def test_metrics_that_are_none(wide, tmp_path, capsys, metric, message):
    arguments = [*wide, "40kB", "--metric", metric, "-o", tmp_path / "r.toml"]
    fails(capsys, arguments, message)
    assert not list(tmp_path.iterdir())


def test_a_python_model_without_weights(tmp_path, capsys):
    out = ["--calibration", "none.safetensors", "--budget", "1MB", "-o", tmp_path / "r.toml"]
    fails(capsys, ["plan", "tests.models:wide_net", *out], "--weights is missing")


def test_the_recipe_of_an_onnx_file_is_what_palettize_takes(onnx, tmp_path, capsys):
    command, path = onnx
    recipe, small, figures = tmp_path / "r.toml", tmp_path / "small.onnx", tmp_path / "r.json"
    assert run(*command, "12kB", "-o", recipe, "--json", figures) == 0
    assert "onnx: " in capsys.readouterr().out
    assert run("palettize", path, "--recipe", recipe, "-o", small) == 0
    plan, size = json.loads(figures.read_text()), small.stat().st_size
    assert plan["size_bytes"] == {"onnx": size}
    assert abs(plan["predicted_bytes"] - size) <= 0.005 * size
    assert size <= 12_000


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--target", "coreml"], "it can become onnx alone; coreml needs the PyTorch model"),
        (["--weights", "w.safetensors"], "--weights goes with PyTorch models"),
        (["--input", "1x64"], "--input goes with PyTorch models"),
        (["--method", "sensitive"], "such files give no gradients"),
        (["--metric", "tests.nowhere:accuracy"], "No module named 'tests.nowhere'"),
    ],
)
def test_what_an_onnx_file_cannot_have(onnx, tmp_path, capsys, more, message):
    fails(capsys, [*onnx[0], "20kB", "-o", tmp_path / "r.toml", *more], message)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.onnx", "no such file"),
        ("m.aimodel", "cannot be planned for; known: .mlpackage, .onnx"),
    ],
)
def test_files_of_other_kinds(tmp_path, capsys, name, message):
    if name == "m.aimodel":
        (tmp_path / name).mkdir()
    out = ["--calibration", "none.safetensors", "--budget", "1MB", "-o", tmp_path / "r.toml"]
    fails(capsys, ["plan", tmp_path / name, *out], message)
