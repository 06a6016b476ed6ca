"""``dkm-deploy compare``, and what ``validate`` offers to CI: exit codes and files."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET

import pytest
import torch
from safetensors.torch import save_file

import dkm_deploy as dkm
from dkm_deploy.cli import main
from tests.models import MIXED, images, small_net
from tests.validation.golden.test_device_outputs import give

MODEL = "tests.models:small_net"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Checkpoints, inputs with labels, a file, a golden bundle and what a phone gave for it."""
    folder = tmp_path_factory.mktemp("cli")
    model = small_net()
    frozen = dkm.palettize(model, MIXED)
    labels = model(images(8)).argmax(1)
    save_file(model.state_dict(), folder / "plain.safetensors")
    save_file({"x": images(8), "labels": labels}, folder / "inputs.safetensors")
    dkm.save(frozen, folder / "packed.safetensors")
    dkm.convert(frozen, images(1), folder / "model.onnx")
    dkm.write_golden(folder / "golden", reference=frozen, inputs=images(8))
    with torch.no_grad():
        give(folder / "phone", folder / "golden", frozen(images(8)).numpy())
    return folder


def _validate(folder, *more):
    return [
        *["validate", f"{folder}/model.onnx", "--model", MODEL],
        *["--weights", f"{folder}/packed.safetensors", "--inputs", f"{folder}/inputs.safetensors"],
        *["--original", f"{folder}/plain.safetensors", *map(str, more)],
    ]


def _compare(*paths):
    return ["compare", *map(str, paths)]


def _fails(capsys, arguments, message):
    assert main([str(a) for a in arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


def test_outputs_of_a_device_are_judged(folder, tmp_path, capsys):
    out = [f"--{kind}={tmp_path}/r.{kind}" for kind in ("json", "html", "junit")]
    assert main(_compare(folder / "golden", folder / "phone", *out)) == 0
    assert "Passed" in capsys.readouterr().out
    assert json.loads((tmp_path / "r.json").read_text())["passed"] is True
    assert len(list(tmp_path.iterdir())) == 3


def test_outputs_that_miss_a_limit_are_exit_code_1(folder, tmp_path, capsys):
    bad = shutil.copytree(folder / "phone", tmp_path / "bad")
    (bad / "raw/outputs.0.bin").write_bytes(bytes(8 * 5 * 4))
    assert main(_compare(folder / "golden", folder / "phone", bad)) == 1
    assert "1 check failed" in capsys.readouterr().out


def test_reports_are_put_side_by_side(folder, tmp_path, capsys):
    for name in ("a", "b"):
        assert main(_validate(folder, "--json", tmp_path / f"{name}.json")) == 0
    capsys.readouterr()
    runs = [tmp_path / "a.json", tmp_path / "b.json"]
    out = [f"--html={tmp_path}/c.html", f"--json={tmp_path}/c.json"]
    assert main(_compare(*runs, *out)) == 0
    printed = capsys.readouterr().out
    assert "a: model.onnx" in printed
    assert "b: model.onnx" in printed
    found = json.loads((tmp_path / "c.json").read_text())
    assert [point["run"] for point in found["points"]] == ["a", "b"]
    assert all("bits = 8" in point["recipe"] for point in found["points"])
    assert (tmp_path / "c.html").read_text().count("<circle") == 2


def test_junit_has_what_was_checked(folder, tmp_path):
    assert main(_validate(folder, "--junit", tmp_path / "r.xml", "--max-size", "10B")) == 1
    root = ET.parse(tmp_path / "r.xml").getroot()  # noqa: S314  # our own file
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("5", "1", "0")


def test_junit_is_there_even_if_the_input_is_bad(folder, tmp_path, capsys):
    arguments = _validate(folder, "--junit", tmp_path / "r.xml")
    arguments[1] = "gone.onnx"
    _fails(capsys, arguments, "gone.onnx: no such file")
    root = ET.parse(tmp_path / "r.xml").getroot()  # noqa: S314  # our own file
    assert (root.get("failures"), root.get("errors")) == ("0", "1")


@pytest.mark.parametrize(("size", "code"), [("1MB", 0), ("10B", 1)])
def test_a_budget_is_held(folder, tmp_path, capsys, size, code):
    (tmp_path / "b.toml").write_text(f"[[files]]\nmatch = '*.onnx'\nmax_bytes = '{size}'\n")
    assert main(_validate(folder, "--budget", tmp_path / "b.toml")) == code
    assert "budget" in capsys.readouterr().out


def test_the_cost_is_measured(folder, tmp_path, capsys):
    more = ["--cost", "--threads", "2", "--max-load-ratio", "1e6", "--json", tmp_path / "r.json"]
    assert main(_validate(folder, *more)) == 0
    assert "in a fresh process" in capsys.readouterr().out
    cost = json.loads((tmp_path / "r.json").read_text())["models"][-1]["cost"]
    assert (cost["threads"], cost["beside"]) == (2, "the original, converted to .onnx")


class TestBadInput:
    def test_a_bundle_alone(self, folder, capsys):
        _fails(capsys, _compare(folder / "golden"), "give folders of device outputs")

    def test_outputs_of_another_bundle(self, folder, tmp_path, capsys):
        frozen = dkm.palettize(small_net(), MIXED)
        dkm.write_golden(tmp_path / "other", reference=frozen, inputs=images(4))
        _fails(capsys, _compare(tmp_path / "other", folder / "phone"), "are not for")

    def test_a_bundle_that_changed(self, folder, tmp_path, capsys):
        golden = shutil.copytree(folder / "golden", tmp_path / "golden")
        (golden / "raw/outputs.0.bin").write_bytes(b"")
        _fails(capsys, _compare(golden, folder / "phone"), "changed since the bundle was written")

    def test_what_is_neither(self, folder, tmp_path, capsys):
        _fails(capsys, _compare(tmp_path / "none"), "no such report")
        _fails(capsys, _compare(folder / "model.onnx"), "not JSON")

    def test_junit_of_reports(self, folder, tmp_path, capsys):
        arguments = _compare(tmp_path / "a.json", "--junit", tmp_path / "r.xml")
        _fails(capsys, arguments, "--junit needs a golden bundle")

    def test_a_page_that_exists(self, folder, tmp_path, capsys):
        (tmp_path / "c.html").write_text("keep me")
        arguments = _compare(folder / "golden", folder / "phone", "--html", tmp_path / "c.html")
        _fails(capsys, arguments, "already exists; use --force")

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            (["--threads", "2"], "--threads needs --cost"),
            (["--dense", "d.onnx"], "--dense needs --cost"),
            (["--cost", "--threads", "0"], "threads is 0; it must be at least 1"),
            (["--budget", "none.toml"], "none.toml: no such budget file"),
        ],
    )
    def test_validate(self, folder, capsys, more, message):
        _fails(capsys, _validate(folder, *more), message)
