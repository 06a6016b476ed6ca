"""The commands: exit codes and what they print."""

from __future__ import annotations

import json
import subprocess
import sys

import onnx
import pytest
from safetensors.torch import save_file

import dkm_deploy as dkm
from dkm_deploy.cli import main
from tests.command import MODEL, fails, golden, validation
from tests.models import MIXED, images, small_net


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version(capsys, flag):
    with pytest.raises(SystemExit) as stop:
        main([flag])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert dkm.__version__ in out if flag == "--version" else "demo" in out


def test_an_interrupt_is_exit_code_130(monkeypatch, capsys):
    """128 + SIGINT, by which a shell ends a loop of commands too."""

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("dkm_deploy.cli.inspect._inspect", interrupted)
    assert main(["inspect", "model.onnx"]) == 130
    assert capsys.readouterr().err == "dkm-deploy: interrupted\n"


@pytest.mark.parametrize("arguments", [[], ["fly"], ["convert"], ["inspect"], ["demo", "--x"]])
def test_wrong_use_is_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


@pytest.mark.parametrize("name", ["model.onnx", "model.mlpackage", "packed.safetensors"])
def test_inspect_shows_palettes_and_bytes_that_add_up(folder, capsys, name):
    assert main(["inspect", f"{folder}/{name}"]) == 0
    out = capsys.readouterr().out
    assert "stem.weight" in out
    assert f"{dkm.size_breakdown(folder / name).total_bytes:,}" in out


def test_inspect_of_a_dense_file(folder, capsys):
    assert main(["inspect", f"{folder}/plain.safetensors"]) == 0
    assert "every weight is dense" in capsys.readouterr().out


@pytest.mark.parametrize("how", ["--bits", "--recipe"])
def test_convert_palettizes_a_plain_checkpoint(folder, tmp_path, how):
    MIXED.save(tmp_path / "recipe.toml")
    value = "3" if how == "--bits" else f"{tmp_path}/recipe.toml"
    code = main(
        [
            *["convert", MODEL, "--weights", f"{folder}/plain.safetensors", how, value],
            *["--input", "1x3x8x8", "-o", f"{tmp_path}/m.onnx", "--option", "opset=19"],
        ]
    )
    assert code == 0
    recipe = MIXED if how == "--recipe" else dkm.Recipe.uniform(3)
    expected = dkm.palettes(dkm.palettize(small_net(), recipe))
    assert dkm.read_palettes(tmp_path / "m.onnx") == expected


@pytest.mark.parametrize("how", ["--bits", "--recipe"])
def test_palettize_an_onnx_file(dense_onnx, tmp_path, capsys, how):
    recipe = dkm.Recipe.uniform(3, cluster_dim=2, group_size=8)
    recipe.save(tmp_path / "recipe.toml")
    layout = ["--bits", "3", "--cluster-dim", "2", "--group-size", "8"]
    layout = layout if how == "--bits" else ["--recipe", f"{tmp_path}/recipe.toml"]
    out = tmp_path / "small.onnx"
    assert main(["palettize", f"{dense_onnx}", *layout, "-o", f"{out}"]) == 0
    printed = capsys.readouterr().out
    assert "input 1 of Add: not the weight of a linear operator" in printed
    sizes = f"{out.stat().st_size:,} bytes, ", f" of {dense_onnx.stat().st_size:,}; palettized: 1"
    assert all(size in printed for size in sizes)
    palette = dkm.read_palettes(out)["w"]
    assert (palette.bits, palette.cluster_dim, palette.groups) == (3, 2, (8, 1))


def test_palettize_a_checkpoint(folder, tmp_path, capsys):
    out = tmp_path / "net.palettes.safetensors"
    arguments = ["palettize", MODEL, "--weights", f"{folder}/plain.safetensors", "--bits", "3"]
    assert main([*arguments, "-o", f"{out}"]) == 0
    assert f"{out.stat().st_size:,} bytes" in capsys.readouterr().out
    expected = dkm.palettes(dkm.palettize(small_net(), dkm.Recipe.uniform(3)))
    assert dkm.palettes(dkm.load(out, small_net())) == expected


def test_palettize_a_checkpoint_and_correct_it(folder, tmp_path, capsys):
    out = tmp_path / "net.palettes.safetensors"
    arguments = ["palettize", MODEL, "--weights", f"{folder}/plain.safetensors", "--bits", "2"]
    arguments += ["--correct", "-o", f"{out}"]
    assert main([*arguments, "--calibration", f"{folder}/inputs.safetensors"]) == 0
    frozen = dkm.palettize(small_net(), dkm.Recipe.uniform(2))
    corrected = dkm.correct_outputs(frozen, small_net(), images(8))
    assert dkm.palettes(dkm.load(out, small_net())) == dkm.palettes(corrected)
    assert "LUT not corrected" not in capsys.readouterr().out
    fails(capsys, [*arguments, "--force"], "calibration data is missing")


def test_a_lone_input_may_have_any_name(folder, tmp_path):
    save_file({"pictures": images(8)}, tmp_path / "p.safetensors")
    assert main(validation(folder, "--inputs", f"{tmp_path}/p.safetensors")) == 0


def test_validate_passes_and_writes_reports(folder, tmp_path, capsys):
    more = ["--original", f"{folder}/plain.safetensors"]
    more += ["--json", f"{tmp_path}/r.json", "--html", f"{tmp_path}/r.html"]
    assert main(validation(folder, *more)) == 0
    assert "Passed" in capsys.readouterr().out
    assert json.loads((tmp_path / "r.json").read_text())["passed"] is True
    assert "<html" in (tmp_path / "r.html").read_text()


def test_a_failed_check_is_exit_code_1(folder, tmp_path, capsys):
    assert main(validation(folder, "--max-size", "10B", "--json", f"{tmp_path}/r.json")) == 1
    assert "failed" in capsys.readouterr().out
    assert json.loads((tmp_path / "r.json").read_text())["passed"] is False


def test_a_limit_on_one_output(folder, capsys):
    assert main(validation(folder, "--limit", "output:max_abs_error=1e-9")) == 1
    assert "output: largest difference" in capsys.readouterr().out


def test_require_is_exit_code_1_where_a_check_was_skipped(folder, capsys):
    more = ["--max-metric-loss", "1"]  # it needs an original
    assert main(validation(folder, *more)) == 0
    assert "Passed, 2 checks skipped" in capsys.readouterr().out
    assert main(validation(folder, *more, "--require")) == 1
    assert "Not passed: 2 required checks skipped" in capsys.readouterr().out
    assert main(validation(folder, *more, "--require-checks", "palettes, parity")) == 0
    assert main(validation(folder, *more, "--require-checks", "parity,metric")) == 1
    assert main(validation(folder, "--require-checks", "parity,speed")) == 2
    assert "unknown check 'speed'" in capsys.readouterr().err


def test_a_golden_bundle_is_written_and_replayed_without_a_model(folder, tmp_path, capsys):
    out = tmp_path / "golden"
    more = ["--original", f"{folder}/plain.safetensors", "--min-agreement", "1%"]
    assert main(golden(folder, out, *more, "--note", "commit=1a2b3c")) == 0
    replay = ["validate", f"{folder}/model.onnx", f"{folder}/model.mlpackage", "--golden", f"{out}"]
    assert main([*replay, "--max-size", "1MB", "--json", f"{tmp_path}/r.json"]) == 0
    assert "Passed" in capsys.readouterr().out
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["limits"]["min_agreement"] == 0.01
    assert report["provenance"]["golden: commit"] == "1a2b3c"
    assert main([*replay, "--max-size", "1KB"]) == 1


def test_python_dash_m_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "dkm_deploy", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["dkm-deploy", dkm.__version__]


@pytest.mark.parametrize("method", ["kmeans", "sensitive"])
def test_palettize_by_a_method(folder, tmp_path, method):
    out = tmp_path / "packed.safetensors"
    data = ["--calibration", f"{folder}/inputs.safetensors"] if method == "sensitive" else []
    source = [MODEL, "--weights", f"{folder}/plain.safetensors", "--bits", "2"]
    assert main(["palettize", *source, "--method", method, *data, "-o", f"{out}"]) == 0
    model, batch = small_net(), (images(8), small_net()(images(8)).argmax(1))
    expected = dkm.palettize(
        model, dkm.Recipe.uniform(2), method, [batch] if method == "sensitive" else None
    )
    assert dkm.read_palettes(out) == dkm.palettes(expected)


def test_a_method_that_needs_gradients_takes_no_file(dense_onnx, tmp_path, capsys):
    source = ["palettize", dense_onnx, "--bits", "2", "-o", tmp_path / "small.onnx"]
    fails(capsys, [*source, "--method", "sensitive"], "such files give no gradients")


def test_sensitive_without_calibration(folder, tmp_path, capsys):
    source = ["palettize", MODEL, "--weights", folder / "plain.safetensors", "--bits", "2"]
    out = ["-o", tmp_path / "packed.safetensors"]
    fails(capsys, [*source, *out, "--method", "sensitive"], "give calibration=")


def test_files_have_the_interface_of_the_one_that_the_app_works_with(folder, tmp_path, capsys):
    file = f"{folder}/model.onnx"
    assert main(validation(folder, "--interface", file, "--json", f"{tmp_path}/r.json")) == 0
    models = json.loads((tmp_path / "r.json").read_text())["models"]
    (reason,) = (
        check["reason"]
        for model in models
        for check in model["checks"]
        if model["name"] == "model.onnx" and check["name"] == "interface"
    )
    assert reason.startswith("as wanted: ")

    renamed = onnx.load(file)
    renamed.graph.output[0].name = "logits"
    for node in renamed.graph.node:
        node.output[:] = ["logits" if name == "output" else name for name in node.output]
    onnx.save(renamed, tmp_path / "renamed.onnx")
    assert main(validation(folder, "--interface", f"{tmp_path}/renamed.onnx")) == 1
    assert "logits" in capsys.readouterr().out

    bundle = tmp_path / "golden"
    assert main(golden(folder, bundle, "--interface", f"{tmp_path}/renamed.onnx")) == 0
    assert main(["validate", file, "--golden", f"{bundle}"]) == 1
    wrong = ["validate", file, "--golden", f"{bundle}", "--interface", file]
    fails(capsys, wrong, "--interface cannot be used with --golden")
    fails(capsys, validation(folder, "--interface", "no.onnx"), "no.onnx")


def test_steps_are_the_first_dimension_of_all_inputs(folder, tmp_path, capsys):
    path = tmp_path / "steps.safetensors"
    save_file({"x": images(8).unsqueeze(1)}, path)
    command = validation(folder, "--inputs", f"{path}", "--steps", "--json", f"{tmp_path}/r.json")
    assert main(command) == 0
    report = json.loads((tmp_path / "r.json").read_text())
    parities = [c["reason"] for m in report["models"] for c in m["checks"] if c["name"] == "parity"]
    assert report["samples"] == 8
    assert all("over 8 steps" in reason for reason in parities)
    wrong = ["validate", f"{folder}/model.onnx", "--golden", f"{tmp_path}", "--steps"]
    fails(capsys, wrong, "--steps cannot be used with --golden")
