"""Golden bundles: written, verified, replayed without a model, and damaged in many ways."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import dkm_deploy as dkm
from dkm_deploy.validation.golden.bundle import read_bundle
from tests.models import MIXED, images, small_net

COUNT = 24
LIMITS = dkm.Limits(
    min_agreement=0.1, max_bytes=10**6, outputs={"output": dkm.OutputLimits(min_cosine=0.99)}
)


def write(folder, **changes):
    settings = {
        "reference": dkm.palettize(small_net(), MIXED),
        "original": small_net(),
        "inputs": images(COUNT),
        "labels": small_net()(images(COUNT)).argmax(1),
        "limits": LIMITS,
        "provenance": {"commit": "1a2b3c"},
    }
    dkm.write_golden(folder, **settings | changes)
    return folder


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    return write(tmp_path_factory.mktemp("golden") / "bundle")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    frozen, folder = dkm.palettize(small_net(), MIXED), tmp_path_factory.mktemp("files")
    names = ("model.onnx", "model.mlpackage")
    return [dkm.convert(frozen, images(1), folder / name).path for name in names]


@pytest.fixture
def copy(golden, tmp_path):
    return shutil.copytree(golden, tmp_path / "copy")


def _contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _sign(folder):
    """Bring the sums in line with what is in the folder, as one who means harm would."""
    parts = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "SHA256SUMS")
    lines = [
        f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder).as_posix()}\n"
        for p in parts
    ]
    (folder / "SHA256SUMS").write_text("".join(lines))


def test_a_replay_finds_what_a_validation_finds(golden, files):
    found = dkm.validate_golden(files, golden)
    expected = dkm.validate(
        files,
        reference=dkm.palettize(small_net(), MIXED),
        original=small_net(),
        inputs=images(COUNT),
        labels=small_net()(images(COUNT)).argmax(1),
        limits=LIMITS,
    )
    assert [_without_parity(row) for row in found.models] == [
        _without_parity(row) for row in expected.files
    ]
    assert (found.layers, found.limits, found.samples) == (
        expected.layers,
        expected.limits,
        expected.samples,
    )
    assert found
    assert found.files[0].metric_loss is not None
    assert found.provenance["golden: commit"] == "1a2b3c"
    json.dumps(found.to_dict(), allow_nan=False)


def _without_parity(row):
    """A bundle has the model's noise with all weights rounded: it does not know the file's."""
    return replace(row, checks=tuple(check for check in row.checks if check.name != "parity"))


def test_raw_copies_need_no_library(golden):
    manifest = json.loads((golden / "bundle.json").read_text())
    [x], [output] = manifest["inputs"], manifest["outputs"]
    assert (x["name"], x["dtype"], x["shape"]) == ("x", "float32", [COUNT, 3, 8, 8])
    raw = np.frombuffer((golden / x["raw"]).read_bytes(), "<f4").reshape(x["shape"])
    assert np.array_equal(raw, images(COUNT).numpy())
    tensors = load_file(golden / "tensors.safetensors")
    raw = np.frombuffer((golden / output["raw"]).read_bytes(), "<f4").reshape(output["shape"])
    assert np.array_equal(raw, tensors["outputs.output"])
    assert manifest["labels"][0]["dtype"] == "int64"


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="sha256sum is not installed")
def test_sums_are_those_of_sha256sum(golden):
    done = subprocess.run(
        [shutil.which("sha256sum"), "--check", "--strict", "SHA256SUMS"],
        cwd=golden,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": OK") == len(_contents(golden)) - 1


def test_the_bytes_are_the_same_each_time_and_in_another_process(golden, tmp_path):
    assert _contents(write(tmp_path / "again")) == _contents(golden)
    script = (
        f"from tests.validation.golden.test_bundle import write; write({str(tmp_path / 'other')!r})"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    assert _contents(tmp_path / "other") == _contents(golden)


def test_the_bundle_comes_back_as_it_went_in(golden):
    bundle = read_bundle(golden)
    assert torch.equal(bundle.inputs["x"], images(COUNT))
    assert bundle.palettes == dkm.palettes(dkm.palettize(small_net(), MIXED))
    assert bundle.limits == LIMITS
    assert list(bundle.original) == ["output"]


def test_limits_are_replaced_one_by_one(golden, files):
    stricter = dkm.Limits(max_bytes=10, outputs={"output": dkm.OutputLimits(max_abs_error=9)})
    report = dkm.validate_golden(files[:1], golden, limits=stricter)
    assert report.limits == dkm.Limits(
        min_agreement=0.1,
        max_bytes=10,
        outputs={"output": dkm.OutputLimits(min_cosine=0.99, max_abs_error=9)},
    )
    assert [line.split(": ")[1] for line in report.failed] == ["size"]


def test_labels_of_another_metric_wait_for_it(files, tmp_path):
    limits = dkm.Limits(max_metric_loss=1)
    golden = write(tmp_path / "g", metric="mean", limits=limits, labels=np.zeros(COUNT))
    checks = {c.name: c.status for c in dkm.validate_golden(files[:1], golden).files[0].checks}
    assert checks["metric"] == "skipped"
    report = dkm.validate_golden(
        files[:1], golden, metric=lambda output, labels: float(output.mean())
    )
    assert {c.name: c.status for c in report.files[0].checks}["metric"] == "passed"


def test_without_an_original_there_are_no_answers(files, tmp_path):
    golden = write(tmp_path / "g", original=None, labels=None, limits=None)
    model = dkm.validate_golden(files[:1], golden).files[0]
    assert (model.agreement, model.metric, model.size_ratio) == (None, None, None)
    assert {c.status for c in model.checks} == {"passed"}


def test_positional_inputs_take_the_names_of_forward(golden, tmp_path):
    assert _contents(write(tmp_path / "g", inputs={"x": images(COUNT)})) == _contents(golden)


def test_another_preprocessing_shows(files, golden, tmp_path):
    other = write(tmp_path / "g", inputs=images(COUNT) / 255)
    tensors = load_file(golden / "tensors.safetensors")
    tensors["inputs.x"] = load_file(other / "tensors.safetensors")["inputs.x"]
    mixed = shutil.copytree(golden, tmp_path / "mixed")
    save_file(tensors, mixed / "tensors.safetensors")
    _sign(mixed)
    report = dkm.validate_golden(files, mixed)
    assert all(": parity: " in line or ": agreement: " in line for line in report.failed)
    assert len(report.failed) >= 2


class TestBadInput:
    def test_one_changed_byte_anywhere(self, copy, files):
        for path in [p for p in copy.rglob("*") if p.is_file()]:
            before = path.read_bytes()
            for place in (0, len(before) // 2, len(before) - 1):
                changed = bytearray(before)
                changed[place] ^= 1
                path.write_bytes(changed)
                with pytest.raises(dkm.DkmError, match="copy/"):
                    dkm.validate_golden(files, copy)
            path.write_bytes(before)
        assert dkm.validate_golden(files[:1], copy)

    @pytest.mark.parametrize(
        "name", ["bundle.json", "tensors.safetensors", "SHA256SUMS", "raw/inputs.0.bin"]
    )
    def test_a_missing_file(self, copy, name):
        (copy / name).unlink()
        with pytest.raises(FileNotFoundError, match=name):
            read_bundle(copy)

    def test_a_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="SHA256SUMS: no such file; a golden bundle"):
            read_bundle(tmp_path / "none")

    @pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "raw/../../x", "raw/.."])
    def test_no_path_leads_outside(self, copy, name):
        with (copy / "SHA256SUMS").open("a") as file:
            file.write(f"{'0' * 64}  {name}\n")
        with pytest.raises(dkm.DkmError, match="not a line of checksums"):
            read_bundle(copy)

    def test_a_name_too_long_for_a_file(self, copy):
        with (copy / "SHA256SUMS").open("a") as file:
            file.write(f"{'0' * 64}  {'x' * 3000}\n")
        with pytest.raises(dkm.DkmError, match="lists it, but it is missing"):
            read_bundle(copy)

    def test_a_link_is_not_followed(self, copy, tmp_path):
        raw = copy / "raw/inputs.0.bin"
        raw.rename(tmp_path / "elsewhere.bin")
        raw.symlink_to(tmp_path / "elsewhere.bin")
        with pytest.raises(dkm.DkmError, match="but it is missing"):
            read_bundle(copy)

    @pytest.mark.parametrize(
        "change",
        [
            {"version": 2},
            {"format": "other"},
            {"inputs": []},
            {"inputs": None},
            {"inputs": [{"name": "y", "dtype": "float32", "shape": [1], "raw": "x"}]},
            {"labels": [3]},
            {"limits": {"max_novelty": 1}},
            {"original_bytes": [1]},
            {"original_bytes": [float("inf"), 1]},
            {"provenance": 3},
        ],
    )
    def test_a_manifest_that_is_signed_but_wrong(self, copy, change):
        path = copy / "bundle.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        _sign(copy)
        with pytest.raises(dkm.DkmError, match=r"bundle\.json: "):
            read_bundle(copy)

    @pytest.mark.parametrize("text", ["", "[" * 100_000, "{", "3", "\xff"])
    def test_a_manifest_that_is_no_json(self, copy, text):
        (copy / "bundle.json").write_text(text, "latin-1")
        _sign(copy)
        with pytest.raises(dkm.DkmError, match=r"bundle\.json: "):
            read_bundle(copy)

    def test_a_file_that_no_sum_covers(self, copy):
        sums = copy / "SHA256SUMS"
        lines = [line for line in sums.read_text().splitlines() if "palettes" not in line]
        sums.write_text("\n".join(lines) + "\n")
        with pytest.raises(dkm.DkmError, match=r"palettes\.safetensors is not listed"):
            read_bundle(copy)

    @pytest.mark.parametrize(
        "name", ["bundle.json", "tensors.safetensors", "palettes.safetensors", "SHA256SUMS"]
    )
    def test_random_damage_is_told_in_one_line(self, copy, files, name):
        path, generator = copy / name, np.random.default_rng(0)
        before, told = path.read_bytes(), 0
        for _ in range(40):
            data = bytearray(before)
            for _ in range(generator.integers(1, 4)):
                at = int(generator.integers(min(len(data), 900)))
                data[at : at + int(generator.integers(3))] = b'9]{"\xff'[at % 5 : at % 5 + 1]
            path.write_bytes(data)
            if name != "SHA256SUMS":
                _sign(copy)
            try:
                dkm.validate_golden(files[:1], copy)
            except dkm.DkmError:
                told += 1
        assert told > 10

    def test_labels_that_do_not_fit(self, copy):
        tensors = load_file(copy / "tensors.safetensors")
        tensors["labels"] = tensors["labels"][:3]
        save_file(tensors, copy / "tensors.safetensors")
        manifest = json.loads((copy / "bundle.json").read_text())
        manifest["labels"][0]["shape"] = [3]
        (copy / "bundle.json").write_text(json.dumps(manifest))
        _sign(copy)
        with pytest.raises(dkm.DkmError, match=r"labels of shape \(3,\) for 24 inputs"):
            read_bundle(copy)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"labels": torch.zeros(3)}, "3 labels for 24 inputs"),
            ({"labels": np.array(["a"] * COUNT)}, "labels are <U1"),
            ({"inputs": (images(COUNT), 3)}, "2 inputs given; forward"),
            ({"limits": dkm.Limits(outputs={"z": dkm.OutputLimits()})}, "limits for output 'z'"),
        ],
    )
    def test_what_cannot_be_written(self, tmp_path, changes, message):
        with pytest.raises(dkm.DkmError, match=message):
            write(tmp_path / "g", **changes)
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_exists(self, copy):
        before = _contents(copy)
        with pytest.raises(FileExistsError):
            write(copy)
        assert _contents(copy) == before
