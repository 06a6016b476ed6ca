"""The command line: exit codes, what it prints, and one line for every kind of bad input."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import torch
from onnx import helper
from safetensors.torch import save_file

import dkm_deploy as dkm
from dkm_deploy.cli import main
from tests.converters.onnx_models import model as onnx_model
from tests.converters.onnx_models import save as save_onnx
from tests.converters.onnx_models import tensor, values
from tests.models import MIXED, images, small_net, wide_net

MODEL = "tests.models:small_net"
ROW = values(1, 32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A plain checkpoint, a palettized one, inputs with labels, and both files."""
    folder = tmp_path_factory.mktemp("cli")
    model = small_net()
    save_file(model.state_dict(), folder / "plain.safetensors")
    dkm.save(dkm.palettize(model, MIXED), folder / "packed.safetensors")
    labels = model(images(8)).argmax(1)
    save_file({"x": images(8), "labels": labels}, folder / "inputs.safetensors")
    code = main(
        [
            *["convert", MODEL, "--weights", f"{folder}/packed.safetensors"],
            *[
                "--input",
                "1x3x8x8",
                "-o",
                f"{folder}/model.onnx",
                "-o",
                f"{folder}/model.mlpackage",
            ],
        ]
    )
    assert code == 0
    return folder


def _fails(capsys, arguments, message):
    """The command exits with 2 and one line on stderr that holds ``message``."""
    assert main([str(a) for a in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("dkm-deploy: error: ")
    assert message in err


def _validate(folder, *more):
    return [
        *["validate", f"{folder}/model.onnx", f"{folder}/model.mlpackage", "--model", MODEL],
        *["--weights", f"{folder}/packed.safetensors", "--inputs", f"{folder}/inputs.safetensors"],
        *more,
    ]


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version(capsys, flag):
    with pytest.raises(SystemExit) as stop:
        main([flag])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert dkm.__version__ in out if flag == "--version" else "demo" in out


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
    assert f"{dkm.ledger(folder / name).total_bytes:,}" in out


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


@pytest.fixture(scope="module")
def dense_onnx(tmp_path_factory):
    """An ONNX file with one weight and one table that is added."""
    path = tmp_path_factory.mktemp("dense") / "dense.onnx"
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Add", ["h", "table"], ["y"]),
    ]
    return save_onnx(path, onnx_model(nodes, [tensor("w", values(64, 32)), tensor("table", ROW)]))


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


def test_validate_passes_and_writes_reports(folder, tmp_path, capsys):
    more = ["--original", f"{folder}/plain.safetensors"]
    more += ["--json", f"{tmp_path}/r.json", "--html", f"{tmp_path}/r.html"]
    assert main(_validate(folder, *more)) == 0
    assert "Passed" in capsys.readouterr().out
    assert json.loads((tmp_path / "r.json").read_text())["passed"] is True
    assert "<html" in (tmp_path / "r.html").read_text()


def test_a_missed_limit_is_exit_code_1(folder, tmp_path, capsys):
    assert main(_validate(folder, "--max-size", "10B", "--json", f"{tmp_path}/r.json")) == 1
    assert "missed" in capsys.readouterr().out
    assert json.loads((tmp_path / "r.json").read_text())["passed"] is False


def test_a_limit_on_one_output(folder, capsys):
    assert main(_validate(folder, "--limit", "output:max_abs_error=1e-9")) == 1
    assert "output: largest difference" in capsys.readouterr().out


def test_require_is_exit_code_1_where_a_check_did_not_run(folder, capsys):
    more = ["--max-metric-loss", "1"]  # it needs an original
    assert main(_validate(folder, *more)) == 0
    assert "Passed, 2 checks not run" in capsys.readouterr().out
    assert main(_validate(folder, *more, "--require")) == 1
    assert "Not passed, 2 checks not run but required" in capsys.readouterr().out
    assert main(_validate(folder, *more, "--require-checks", "palettes, parity")) == 0
    assert main(_validate(folder, *more, "--require-checks", "parity,metric")) == 1
    assert main(_validate(folder, "--require-checks", "parity,speed")) == 2
    assert "no check is called 'speed'" in capsys.readouterr().err


def _golden(folder, out, *more):
    return [
        *["golden", f"{out}", "--model", MODEL, "--weights", f"{folder}/packed.safetensors"],
        *["--inputs", f"{folder}/inputs.safetensors", *more],
    ]


def test_a_golden_bundle_is_written_and_replayed_without_a_model(folder, tmp_path, capsys):
    out = tmp_path / "golden"
    more = ["--original", f"{folder}/plain.safetensors", "--min-agreement", "1%"]
    assert main(_golden(folder, out, *more, "--note", "commit=1a2b3c")) == 0
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


class TestBadInput:
    @pytest.mark.parametrize("name", ["none.onnx", "none.mlpackage", "none.safetensors"])
    def test_a_missing_file(self, tmp_path, capsys, name):
        _fails(capsys, ["inspect", tmp_path / name], f"{name}: no such file")

    @pytest.mark.parametrize("name", ["m.onnx", "m.mlpackage", "m.safetensors", "m.gguf"])
    def test_a_file_of_another_kind(self, tmp_path, capsys, name):
        (tmp_path / name).write_text("not a model at all")
        _fails(capsys, ["inspect", tmp_path / name], name)

    def test_a_truncated_file(self, folder, tmp_path, capsys):
        for name in ("model.onnx", "packed.safetensors"):
            data = (folder / name).read_bytes()
            (tmp_path / name).write_bytes(data[: len(data) // 2])
            _fails(capsys, ["inspect", tmp_path / name], name)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"--bits": "9"}, "bits is 9; it must be 1 to 8"),
            ({"--bits": None}, "give --bits or --recipe"),
            ({"--weights": "{}/none.safetensors"}, "none.safetensors: no such file"),
            ({"--weights": "{}/packed.safetensors"}, "palettized already"),
            ({"--input": "1x3x8"}, "does not run on the example inputs of shape [(1, 3, 8)]"),
            ({"--input": "1x4x8x8"}, "does not run on the example inputs"),
            ({"--input": "axb"}, "--input 'axb': write a shape as"),
            ({"--input": "1x3:int7"}, "--input '1x3:int7': write a shape as"),
            ({"--option": "opset=5"}, "opset is 5; it must be 18 to"),
            ({"--option": "level=3"}, "no option 'level'; it has opset"),
            ({"--option": "opset"}, "--option 'opset': write it as NAME=VALUE"),
            ({"-o": "{}/m.tflite"}, "suffix '.tflite' cannot be written"),
            ({"-o": "{}/model.onnx"}, "already exists; use --force"),
            ({"model": "tests.models:SmallerNet"}, "'tests.models:SmallerNet' cannot be made"),
            ({"model": "tests.modells:SmallNet"}, "No module named 'tests.modells'"),
            ({"model": "small_net"}, "write it as package.module:callable"),
            ({"model": "tests.models:images"}, "gave a Tensor, not a torch.nn.Module"),
            ({"model": "tests.models:TiedNet"}, "does not belong to tests.models:TiedNet"),
        ],
    )
    def test_convert(self, folder, tmp_path, capsys, changes, message):
        settings = {
            "model": MODEL,
            "--weights": "{}/plain.safetensors",
            "--bits": "2",
            "--input": "1x3x8x8",
            "-o": f"{tmp_path}/out.onnx",
        } | changes
        arguments = ["convert", settings.pop("model")]
        for flag, value in settings.items():
            arguments += [] if value is None else [flag, value.format(folder)]
        _fails(capsys, arguments, message)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"--bits": "9"}, "bits is 9; it must be 1 to 8"),
            ({"--group-size": "7"}, "w: group_size 7 does not divide its 64 channels"),
            ({"--bits": None, "--recipe": "{}/none.toml"}, "none.toml: no such recipe file"),
            ({"--bits": None, "--recipe": "r.toml", "--cluster-dim": "2"}, "go with --bits"),
            ({"source": "none.onnx"}, "none.onnx: no such file"),
            ({"source": "{}/model.mlpackage"}, "cannot be palettized; known: .onnx"),
            ({"source": "net.pt2"}, "a .pt2 program cannot be palettized yet"),
            ({"source": "{}/model.onnx"}, "palettized already (stem.weight, head.weight)"),
            ({"source": MODEL}, "--weights goes with package.module:callable, which needs it"),
            ({"--weights": "{}/plain.safetensors"}, "--weights goes with package.module:callable"),
            ({"-o": "{}/model.onnx"}, "already exists; use --force"),
            ({"-o": "small.mlpackage"}, "gives a file with suffix .onnx"),
        ],
    )
    def test_palettize(self, folder, dense_onnx, tmp_path, capsys, changes, message):
        out = f"{tmp_path}/out.onnx"
        settings = {"source": f"{dense_onnx}", "--bits": "2", "-o": out} | changes
        arguments = ["palettize", settings.pop("source").format(folder)]
        for flag, value in settings.items():
            arguments += [] if value is None else [flag, value.format(folder)]
        _fails(capsys, arguments, message)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("weights", "out", "message"),
        [
            ("packed.safetensors", "out.safetensors", "packed.safetensors: palettized already"),
            ("none.safetensors", "out.safetensors", "none.safetensors: no such file"),
            ("plain.safetensors", "out.onnx", "for other files there is dkm-deploy convert"),
        ],
    )
    def test_palettize_a_checkpoint(self, folder, tmp_path, capsys, weights, out, message):
        arguments = ["palettize", MODEL, "--weights", folder / weights, "--bits", "2"]
        _fails(capsys, [*arguments, "-o", tmp_path / out], message)
        assert list(tmp_path.iterdir()) == []

    def test_palettize_a_checkpoint_onto_itself(self, folder, capsys):
        plain = folder / "plain.safetensors"
        before = plain.read_bytes()
        arguments = ["palettize", MODEL, "--weights", plain, "--bits", "2", "-o", plain, "--force"]
        _fails(capsys, arguments, "this is the input")
        assert plain.read_bytes() == before

    def test_convert_with_a_bad_recipe(self, folder, tmp_path, capsys):
        (tmp_path / "r.toml").write_text("[[rules]]\nmatch = 'nothing.*'\nskip = true\n")
        arguments = ["convert", MODEL, "--weights", folder / "plain.safetensors", "--input"]
        arguments += ["1x3x8x8", "--recipe", tmp_path / "r.toml", "-o", tmp_path / "m.onnx"]
        _fails(capsys, arguments, "no weight of the model matches rule 'nothing.*'")

    def test_convert_of_weights_with_nan(self, tmp_path, capsys):
        state = small_net().state_dict()
        state["stem.weight"][0, 0, 0, 0] = torch.nan
        save_file(state, tmp_path / "nan.safetensors")
        arguments = ["convert", MODEL, "--weights", tmp_path / "nan.safetensors", "--bits", "2"]
        arguments += ["--input", "1x3x8x8", "-o", tmp_path / "m.onnx"]
        _fails(capsys, arguments, "stem.weight: the weights hold NaN or infinity")

    def test_validate_against_another_checkpoint(self, folder, tmp_path, capsys):
        arguments = _validate(folder, "--weights", f"{folder}/plain.safetensors")
        _fails(capsys, arguments, "not a palettized checkpoint")

    def test_validate_a_package_that_is_cut_short(self, folder, tmp_path, capsys):
        shutil.copytree(folder / "model.mlpackage", tmp_path / "cut.mlpackage")
        weights = tmp_path / "cut.mlpackage/Data/com.apple.CoreML/weights/weight.bin"
        weights.write_bytes(weights.read_bytes()[:150])
        arguments = _validate(folder)
        arguments[1:3] = [tmp_path / "cut.mlpackage"]
        _fails(capsys, arguments, "cut.mlpackage")

    def test_validate_against_nothing(self, folder, capsys):
        _fails(capsys, ["validate", folder / "model.onnx"], "--model is missing")

    def test_validate_against_a_bundle_and_a_model(self, folder, tmp_path, capsys):
        arguments = _validate(folder, "--golden", f"{tmp_path}")
        _fails(capsys, arguments, "--model does not go with --golden")

    def test_validate_against_a_bundle_that_changed(self, folder, tmp_path, capsys):
        assert main(_golden(folder, tmp_path / "golden")) == 0
        capsys.readouterr()
        (tmp_path / "golden/raw/outputs.0.bin").write_bytes(b"")
        arguments = ["validate", folder / "model.onnx", "--golden", tmp_path / "golden"]
        _fails(capsys, arguments, "outputs.0.bin: changed since the bundle was written")

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            (["--note", "commit"], "--note 'commit': write it as NAME=TEXT"),
            (["--limit", "z:min_cosine=1"], "limits for output 'z'; the outputs are output"),
            (["--inputs", "none.safetensors"], "none.safetensors: no such file"),
        ],
    )
    def test_golden(self, folder, tmp_path, capsys, more, message):
        _fails(capsys, _golden(folder, tmp_path / "golden", *more), message)
        assert list(tmp_path.iterdir()) == []

    def test_golden_into_a_folder_that_exists(self, folder, tmp_path, capsys):
        _fails(capsys, _golden(folder, tmp_path), "already exists; use --force")

    @pytest.mark.parametrize(
        ("flag", "message"),
        [("--max-size", "size '5x': write it as"), ("--min-agreement", "share '5x': write it as")],
    )
    def test_validate_with_a_figure_that_is_none(self, folder, capsys, flag, message):
        _fails(capsys, _validate(folder, flag, "5x"), message)

    def test_validate_with_a_limit_that_does_not_exist(self, folder, capsys):
        _fails(capsys, _validate(folder, "--limit", "output:cosine=1"), "no limit is called")

    def test_validate_with_a_report_that_exists(self, folder, tmp_path, capsys):
        (tmp_path / "r.json").write_text("keep me")
        _fails(capsys, _validate(folder, "--json", f"{tmp_path}/r.json"), "already exists")
        assert (tmp_path / "r.json").read_text() == "keep me"

    def test_validate_inputs_that_hold_only_labels(self, folder, tmp_path, capsys):
        save_file({"labels": torch.zeros(3)}, tmp_path / "l.safetensors")
        arguments = _validate(folder, "--inputs", f"{tmp_path}/l.safetensors")
        _fails(capsys, arguments, "it holds no inputs")

    def test_demo_into_a_folder_that_exists(self, tmp_path, capsys):
        (tmp_path / "mine.txt").write_text("keep me")
        _fails(capsys, ["demo", "--out", tmp_path], "already exists; use --force")
        assert (tmp_path / "mine.txt").read_text() == "keep me"


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
    _fails(capsys, [*source, "--method", "sensitive"], "they give no gradients")


def test_sensitive_without_calibration(folder, tmp_path, capsys):
    source = ["palettize", MODEL, "--weights", folder / "plain.safetensors", "--bits", "2"]
    out = ["-o", tmp_path / "packed.safetensors"]
    _fails(capsys, [*source, *out, "--method", "sensitive"], "give calibration=")


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """The command line that plans a WideNet for ONNX, up to its budget."""
    folder = tmp_path_factory.mktemp("wide")
    save_file(wide_net().state_dict(), folder / "wide.safetensors")
    save_file({"x": images(8)}, folder / "inputs.safetensors")
    weights, inputs = f"{folder}/wide.safetensors", f"{folder}/inputs.safetensors"
    source = ["plan", "tests.models:wide_net", "--weights", weights, "--calibration", inputs]
    return [*source, "--target", "onnx", "--bits", "2", "--cache", f"{folder}/cache", "--budget"]


def test_plan_writes_a_recipe_that_fits(wide, tmp_path, capsys):
    out, svg, figures = tmp_path / "r.toml", tmp_path / "r.svg", tmp_path / "r.json"
    written = ["-o", f"{out}", "--svg", f"{svg}", "--json", f"{figures}"]
    assert main([*wide, "40kB", *written]) == 0
    assert "% of the budget" in capsys.readouterr().out
    palettized = dkm.palettize(wide_net(), dkm.Recipe.load(out))
    file = dkm.convert(palettized, images(1), tmp_path / "m.onnx")
    plan = json.loads(figures.read_text())
    assert plan["size_bytes"] == {"onnx": file.size_bytes}
    assert file.size_bytes <= 40_000
    assert f"<title>{plan['predicted_bytes']:,} bytes, loss " in svg.read_text()


def test_plan_for_too_few_bytes(wide, tmp_path, capsys):
    assert main([*wide, "100", "-o", f"{tmp_path}/r.toml"]) == 2
    assert "cannot be met: the smallest file" in capsys.readouterr().err
    assert not (tmp_path / "r.toml").exists()
