"""``.pt2`` files on the command line, wherever a model is named."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

import dkm_deploy as dkm
from tests.command import fails, run
from tests.model.test_pt2_program import FREE, write
from tests.models import images, small_net

FOUR = dkm.Recipe.uniform(4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A program, a plain checkpoint, a palettized one made by the command line, and inputs."""
    folder = tmp_path_factory.mktemp("program")
    write(folder / "net.pt2", small_net(), (images(4),), FREE)
    save_file(small_net().state_dict(), folder / "plain.safetensors")
    labels = small_net()(images(16)).argmax(1)
    save_file({"x": images(16), "labels": labels}, folder / "inputs.safetensors")
    out = folder / "packed.safetensors"
    assert run("palettize", folder / "net.pt2", "--bits", "4", "-o", out) == 0
    return folder


def agreement(outputs, labels):
    """A metric of another name."""
    return float((outputs.argmax(1) == labels).sum())


def test_palettize_gives_the_checkpoint_of_the_model(folder):
    expected = dkm.palettes(dkm.palettize(small_net(), FOUR))
    assert dkm.palettes(dkm.load(folder / "packed.safetensors", small_net())) == expected
    out = folder / "again.safetensors"
    result = dkm.palettize_file(folder / "net.pt2", out, FOUR)
    assert result.palettes == expected
    assert result.bytes_before == sum(t.nbytes for t in small_net().state_dict().values())


@pytest.mark.parametrize("method", ["sensitive", "bin_quant"])
def test_palettize_by_a_method(folder, tmp_path, method):
    out, data = tmp_path / "packed.safetensors", folder / "inputs.safetensors"
    source = ["palettize", folder / "net.pt2", "--bits", "3", "--method", method]
    more = ["--metric", "tests.cli.test_program:agreement", "--tolerance", "1"]
    more = more if method == "bin_quant" else []
    assert run(*source, "--calibration", data, *more, "-o", out) == 0
    batch = (images(16), small_net()(images(16)).argmax(1).numpy())
    how = dkm.BinQuant(agreement, tolerance=1) if method == "bin_quant" else method
    recipe = dkm.Recipe.uniform(3)
    expected = dkm.palettize(small_net(), recipe, how, [(batch[0], torch.tensor(batch[1]))])
    assert dkm.read_palettes(out) == dkm.palettes(expected)


@pytest.mark.slow
@pytest.mark.parametrize("how", [[], ["--input", "1x3x8x8"]])
def test_convert_palettizes_on_the_way(folder, tmp_path, how):
    out = tmp_path / "net.onnx"
    assert run("convert", folder / "net.pt2", "--bits", "4", *how, "-o", out) == 0
    frozen = dkm.palettize(small_net(), FOUR)
    assert dkm.read_palettes(out) == dkm.palettes(frozen)
    count = 1 if how else 9
    assert dkm.validate([out], reference=frozen, inputs={"x": images(count)})


def test_validate_against_programs(folder, tmp_path, capsys):
    out, program = tmp_path / "net.onnx", folder / "net.pt2"
    assert run("convert", program, "--weights", folder / "packed.safetensors", "-o", out) == 0
    command = ["validate", out, "--model", program, "--weights", folder / "packed.safetensors"]
    command += ["--inputs", folder / "inputs.safetensors", "--original", program]
    metric = ["--metric", "tests.cli.test_program:agreement"]
    assert run(*command, *metric, "--json", tmp_path / "r.json") == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["metric_name"] == "agreement"
    original = next(row for row in report["models"] if row["name"].startswith("original"))
    assert original["metric"] == 16
    message = "a plain checkpoint, but"
    fails(capsys, [*command[:-1], folder / "plain.safetensors"], message)
    fails(capsys, [*command, "--metric", "agreement"], "write it as package.module:callable")


def test_golden_with_a_metric(folder, tmp_path):
    golden = ["golden", tmp_path / "golden", "--model", folder / "net.pt2", "--weights"]
    golden += [folder / "packed.safetensors", "--inputs", folder / "inputs.safetensors"]
    assert run(*golden, "--metric", "tests.cli.test_program:agreement") == 0
    bundle = json.loads((tmp_path / "golden/bundle.json").read_text())
    assert bundle["metric"] == "tests.cli.test_program:agreement"


@pytest.mark.slow
def test_plan(folder, tmp_path):
    recipe, figures, out = tmp_path / "r.toml", tmp_path / "r.json", tmp_path / "net.onnx"
    plan = ["plan", folder / "net.pt2", "--calibration", folder / "inputs.safetensors"]
    plan += ["--target", "onnx", "--bits", "2", "--bits", "8", "--budget", "40kB"]
    assert run(*plan, "-o", recipe, "--json", figures) == 0
    assert run("convert", folder / "net.pt2", "--recipe", recipe, "-o", out) == 0
    assert json.loads(figures.read_text())["size_bytes"] == {"onnx": out.stat().st_size}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["palettize", "{}/net.pt2", "--bits", "4", "-o", "{out}/x.onnx"], "dkm-deploy convert"),
        (
            ["palettize", "{}/net.pt2", "--weights", "{}/plain.safetensors", "--bits", "4"],
            "--weights is needed for package.module:callable",
        ),
        (
            ["palettize", "{}/net.pt2", "--bits", "4", "--tolerance", "1"],
            "--tolerance needs --method bin_quant",
        ),
        (
            ["palettize", "{}/net.pt2", "--bits", "4", "--method", "bin_quant"],
            "calibration data is missing",
        ),
        (
            ["convert", "{}/net.pt2", "--weights", "{}/plain.safetensors", "--bits", "4"],
            "a plain checkpoint, but {}/net.pt2 has weights; leave it out",
        ),
        (["convert", "{}/net.pt2"], "it is plain; give --bits or --recipe"),
        (["convert", "{}/none.pt2", "--bits", "4"], "none.pt2: no such file"),
        (["convert", "tests.models:small_net", "--bits", "4"], "--input is missing"),
    ],
)
def test_wrong_use(folder, tmp_path, capsys, arguments, message):
    words = {"out": str(tmp_path)}
    arguments = [word.format(folder, **words) for word in arguments]
    arguments += [] if "-o" in arguments else ["-o", f"{tmp_path}/x.{_suffix(arguments)}"]
    fails(capsys, arguments, message.format(folder))
    assert not list(tmp_path.iterdir())


def _suffix(arguments):
    return "safetensors" if arguments[0] == "palettize" else "onnx"
