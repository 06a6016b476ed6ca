"""One line and exit code 2 for every kind of bad input."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import save_file

from dkm_deploy.cli import main
from tests.command import MODEL, fails, golden, validation
from tests.models import small_net


class TestBadInput:
    @pytest.mark.parametrize("name", ["none.onnx", "none.mlpackage", "none.safetensors"])
    def test_a_missing_file(self, tmp_path, capsys, name):
        fails(capsys, ["inspect", tmp_path / name], f"{name}: no such file")

    @pytest.mark.parametrize("name", ["m.onnx", "m.mlpackage", "m.safetensors", "m.gguf"])
    def test_a_file_of_another_kind(self, tmp_path, capsys, name):
        (tmp_path / name).write_text("not a model at all")
        fails(capsys, ["inspect", tmp_path / name], name)

    def test_a_truncated_file(self, folder, tmp_path, capsys):
        for name in ("model.onnx", "packed.safetensors"):
            data = (folder / name).read_bytes()
            (tmp_path / name).write_bytes(data[: len(data) // 2])
            fails(capsys, ["inspect", tmp_path / name], name)

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
            ({"--option": "=18"}, "--option '=18': write it as NAME=VALUE"),
            ({"-o": "{}/m.tflite"}, "suffix '.tflite' cannot be written"),
            ({"-o": "{}/model.onnx"}, "already exists; use --force"),
            ({"model": "tests.models:SmallerNet"}, "'tests.models:SmallerNet' cannot be imported"),
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
        fails(capsys, arguments, message)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"--bits": "9"}, "bits is 9; it must be 1 to 8"),
            ({"--cluster-dim": "17"}, "cluster_dim is 17; it must be 1 to 16"),
            ({"--bits": None, "--recipe": "{}/none.toml"}, "none.toml: no such recipe file"),
            ({"--bits": None, "--recipe": "r.toml", "--cluster-dim": "2"}, "need --bits"),
            ({"source": "none.onnx"}, "none.onnx: no such file"),
            ({"source": "{}/model.mlpackage"}, "gives a file with suffix .mlpackage"),
            ({"source": "net.pt2"}, "for other files there is dkm-deploy convert"),
            ({"source": "{}/model.onnx"}, "palettized already (stem.weight, head.weight)"),
            ({"source": MODEL}, "--weights is needed for package.module:callable"),
            (
                {"--weights": "{}/plain.safetensors"},
                "--weights is needed for package.module:callable",
            ),
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
        fails(capsys, arguments, message)
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
        fails(capsys, [*arguments, "-o", tmp_path / out], message)
        assert list(tmp_path.iterdir()) == []

    def test_palettize_a_checkpoint_onto_itself(self, folder, capsys):
        plain = folder / "plain.safetensors"
        before = plain.read_bytes()
        arguments = ["palettize", MODEL, "--weights", plain, "--bits", "2", "-o", plain, "--force"]
        fails(capsys, arguments, "this is the input")
        assert plain.read_bytes() == before

    def test_convert_with_a_bad_recipe(self, folder, tmp_path, capsys):
        (tmp_path / "r.toml").write_text("[[rules]]\nmatch = 'nothing.*'\nskip = true\n")
        arguments = ["convert", MODEL, "--weights", folder / "plain.safetensors", "--input"]
        arguments += ["1x3x8x8", "--recipe", tmp_path / "r.toml", "-o", tmp_path / "m.onnx"]
        fails(capsys, arguments, "no weight of the model matches rule 'nothing.*'")

    def test_convert_of_weights_with_nan(self, tmp_path, capsys):
        state = small_net().state_dict()
        state["stem.weight"][0, 0, 0, 0] = torch.nan
        save_file(state, tmp_path / "nan.safetensors")
        arguments = ["convert", MODEL, "--weights", tmp_path / "nan.safetensors", "--bits", "2"]
        arguments += ["--input", "1x3x8x8", "-o", tmp_path / "m.onnx"]
        fails(capsys, arguments, "stem.weight: the weights hold NaN or infinity")

    def test_validate_against_another_checkpoint(self, folder, tmp_path, capsys):
        arguments = validation(folder, "--weights", f"{folder}/plain.safetensors")
        fails(capsys, arguments, "not a palettized checkpoint")

    def test_validate_a_package_that_is_cut_short(self, folder, tmp_path, capsys):
        shutil.copytree(folder / "model.mlpackage", tmp_path / "cut.mlpackage")
        weights = tmp_path / "cut.mlpackage/Data/com.apple.CoreML/weights/weight.bin"
        weights.write_bytes(weights.read_bytes()[:150])
        arguments = validation(folder)
        arguments[1:3] = [tmp_path / "cut.mlpackage"]
        fails(capsys, arguments, "cut.mlpackage")

    def test_validate_against_nothing(self, folder, capsys):
        fails(capsys, ["validate", folder / "model.onnx"], "--model is missing")

    def test_validate_against_a_bundle_and_a_model(self, folder, tmp_path, capsys):
        arguments = validation(folder, "--golden", f"{tmp_path}")
        fails(capsys, arguments, "--model cannot be used with --golden")

    def test_validate_against_a_bundle_that_changed(self, folder, tmp_path, capsys):
        assert main(golden(folder, tmp_path / "golden")) == 0
        capsys.readouterr()
        (tmp_path / "golden/raw/outputs.0.bin").write_bytes(b"")
        arguments = ["validate", folder / "model.onnx", "--golden", tmp_path / "golden"]
        fails(capsys, arguments, "outputs.0.bin: changed since the bundle was written")

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            (["--note", "commit"], "--note 'commit': write it as NAME=TEXT"),
            (["--limit", "z:min_cosine=1"], "limits for output 'z'; the outputs are output"),
            (["--inputs", "none.safetensors"], "none.safetensors: no such file"),
        ],
    )
    def test_golden(self, folder, tmp_path, capsys, more, message):
        fails(capsys, golden(folder, tmp_path / "golden", *more), message)
        assert list(tmp_path.iterdir()) == []

    def test_golden_into_a_folder_that_exists(self, folder, tmp_path, capsys):
        fails(capsys, golden(folder, tmp_path), "already exists; use --force")

    @pytest.mark.parametrize(
        ("flag", "message"),
        [("--max-size", "size '5x': write it as"), ("--min-agreement", "share '5x': write it as")],
    )
    def test_validate_with_a_figure_that_is_none(self, folder, capsys, flag, message):
        fails(capsys, validation(folder, flag, "5x"), message)

    def test_validate_with_a_limit_that_does_not_exist(self, folder, capsys):
        fails(capsys, validation(folder, "--limit", "output:cosine=1"), "unknown key 'cosine'")

    def test_validate_with_a_report_that_exists(self, folder, tmp_path, capsys):
        (tmp_path / "r.json").write_text("keep me")
        fails(capsys, validation(folder, "--json", f"{tmp_path}/r.json"), "already exists")
        assert (tmp_path / "r.json").read_text() == "keep me"

    def test_validate_inputs_that_hold_only_labels(self, folder, tmp_path, capsys):
        save_file({"labels": torch.zeros(3)}, tmp_path / "l.safetensors")
        arguments = validation(folder, "--inputs", f"{tmp_path}/l.safetensors")
        fails(capsys, arguments, "it holds no inputs")

    def test_validate_inputs_of_other_names(self, folder, tmp_path, capsys):
        save_file({"a": torch.zeros(3), "b": torch.zeros(3)}, tmp_path / "ab.safetensors")
        arguments = validation(folder, "--inputs", f"{tmp_path}/ab.safetensors")
        fails(capsys, arguments, "ab.safetensors: holds a, b, and forward() takes x")

    def test_demo_into_a_folder_that_exists(self, tmp_path, capsys):
        (tmp_path / "mine.txt").write_text("keep me")
        fails(capsys, ["demo", "--out", tmp_path], "already exists; use --force")
        assert (tmp_path / "mine.txt").read_text() == "keep me"
