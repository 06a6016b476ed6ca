"""What a device gave, judged against the golden bundle it was given."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

import dkm_deploy as dkm
from dkm_deploy.validation.golden.device_outputs import _DTYPES, _tensor, read_returned
from dkm_deploy.validation.golden.manifest import TensorEntry
from tests.models import MIXED, images, small_net

COUNT = 24
LIMITS = dkm.Limits(min_agreement=0.1, max_bytes=10**6)


@pytest.fixture(scope="module")
def frozen():
    return dkm.palettize(small_net(), MIXED)


@pytest.fixture(scope="module")
def golden(frozen, tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden") / "bundle"
    dkm.write_golden(
        folder,
        reference=frozen,
        original=small_net(),
        inputs=images(COUNT),
        labels=small_net()(images(COUNT)).argmax(1),
        limits=LIMITS,
    )
    return folder


@pytest.fixture(scope="module")
def scores(frozen):
    with torch.no_grad():
        return frozen(images(COUNT)).numpy()


def give(folder, bundle, scores, **changes):
    """Write outputs with nothing but a file system, JSON and SHA-256, as a device does."""
    (folder / "raw").mkdir(parents=True)
    (folder / "raw/outputs.0.bin").write_bytes(scores.tobytes())
    entry = {"name": "output", "dtype": scores.dtype.name, "shape": list(scores.shape)}
    manifest = {
        "format": "dkm-deploy device outputs",
        "version": 1,
        "golden": hashlib.sha256((bundle / "SHA256SUMS").read_bytes()).hexdigest(),
        "runtime": "Core ML, iPhone",
        "outputs": [entry | {"raw": "raw/outputs.0.bin"}],
    }
    (folder / "outputs.json").write_text(json.dumps(manifest | changes))
    return folder


def test_right_outputs_pass(frozen, golden, scores, tmp_path):
    report = dkm.validate_device_outputs([give(tmp_path / "phone", golden, scores)], golden)
    model = report.files[0]
    assert report
    assert (model.name, model.runtime, model.size_bytes) == ("phone", "Core ML, iPhone", None)
    assert [(check.name, check.status) for check in model.checks] == [
        ("parity", "passed"),
        ("agreement", "passed"),
        ("size", "skipped"),
    ]
    assert model.errors["output"].relative < 1e-6
    assert model.metric is not None
    assert report.provenance["golden: torch"] == torch.__version__
    assert report.histograms.keys() == dkm.palettes(frozen).keys()


def test_several_runs_are_judged_one_by_one(golden, scores, tmp_path):
    folders = [
        give(tmp_path / "cpu", golden, scores),
        give(tmp_path / "half", golden, scores.astype(np.float16)),
        give(tmp_path / "ane", golden, scores + 1),
    ]
    report = dkm.validate_device_outputs(folders, golden)
    assert not report
    statuses = {model.name: model.checks[0].status for model in report.files}
    assert statuses == {"cpu": "passed", "half": "passed", "ane": "failed"}
    assert report.failed[0].startswith("ane: parity: output: relative error")


def test_a_damaged_folder_fails_and_the_others_are_judged(golden, scores, tmp_path):
    right = give(tmp_path / "cpu", golden, scores)
    damaged = give(tmp_path / "damaged", golden, scores)
    (damaged / "raw/outputs.0.bin").write_bytes(b"half")
    other = give(tmp_path / "other", golden, scores, golden="0" * 64)
    report = dkm.validate_device_outputs([damaged, right, other], golden)
    assert not report
    statuses = {model.name: [check.status for check in model.checks] for model in report.files}
    assert statuses == {
        "damaged": ["failed"],
        "cpu": ["passed", "passed", "skipped"],
        "other": ["failed"],
    }
    assert [line.split(": ")[:2] for line in report.failed] == [
        ["damaged", "parity"],
        ["other", "parity"],
    ]
    with pytest.raises(FileNotFoundError, match="none: no such file or folder"):
        dkm.validate_device_outputs([right, tmp_path / "none"], golden)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s[:3], r"shape \(3, 5\) in place of \(24, 5\)"),
        (lambda s: np.full_like(s, np.nan), "NaN or infinite"),
        (lambda s: s[::-1].copy(), "relative error"),
    ],
)
def test_wrong_outputs_fail(golden, scores, tmp_path, change, reason):
    report = dkm.validate_device_outputs([give(tmp_path / "phone", golden, change(scores))], golden)
    (line,) = [line for line in report.failed if ": parity: " in line]
    assert re.search(reason, line)


def test_a_report_of_outputs_has_every_view(golden, scores, tmp_path):
    report = dkm.validate_device_outputs([give(tmp_path / "phone", golden, scores)], golden)
    report.to_json(tmp_path / "r.json")
    report.to_html(tmp_path / "r.html")
    report.to_junit(tmp_path / "r.xml")
    assert "Core ML, iPhone" in (tmp_path / "r.html").read_text()
    assert "Where the bytes are" not in (tmp_path / "r.html").read_text()


def test_a_metric_of_ones_own_is_used(golden, scores, tmp_path):
    def mean_score(output, labels):
        return float(output.mean())

    folder = give(tmp_path / "phone", golden, scores)
    report = dkm.validate_device_outputs(folder, golden, metric=mean_score)
    assert report.metric_name == "mean_score"
    assert report.files[0].metric == pytest.approx(scores.mean())


class TestBadInput:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"format": "other"}, "format is 'other'; it must be 'dkm-deploy device outputs'"),
            ({"version": 2}, "version is 2; it must be 1"),
            ({"golden": "0" * 64}, "these outputs are not for .*bundle"),
            ({"golden": None}, "golden is None; it must be text"),
            ({"outputs": 3}, "outputs is 3; it must be a list"),
            ({"outputs": [{}]}, r"outputs\[0\].name is missing; it must be text"),
            (
                {"outputs": [3]},
                r"outputs\[0\] is 3; it must be a mapping with the keys name, dtype",
            ),
        ],
    )
    def test_a_manifest_that_is_wrong(self, golden, scores, tmp_path, changes, message):
        give(tmp_path / "phone", golden, scores, **changes)
        with pytest.raises(dkm.DkmError, match=message) as caught:
            dkm.validate_device_outputs([tmp_path / "phone"], golden)
        assert "outputs.json: " in str(caught.value)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"dtype": "bfloat16"}, "dtype 'bfloat16'; it must be one of float16"),
            ({"dtype": "object"}, "dtype 'object'"),
            ({"dtype": "float64"}, "480 bytes; float64 of shape .* has 960"),
            ({"shape": [10**12, 10**12]}, "bytes; float32 of shape"),
            ({"shape": [-1, -120]}, "is not a valid shape"),
            ({"shape": [24.0, 5]}, r"outputs\[0\].shape\[0\] is 24.0; it must be an integer"),
            ({"shape": None}, r"outputs\[0\].shape is None; it must be a list"),
            ({"raw": "../outputs.json"}, "no file '../outputs.json'"),
            ({"raw": "/etc/hostname"}, "no file '/etc/hostname'"),
            ({"raw": "raw/gone.bin"}, "no file 'raw/gone.bin'"),
            ({"raw": "raw"}, "no file 'raw'"),
            ({"raw": "x" * 3000}, "no file 'xxx"),
            ({"raw": 3}, r"outputs\[0\].raw is 3; it must be text"),
        ],
    )
    def test_an_entry_that_is_wrong(self, golden, scores, tmp_path, changes, message):
        folder = give(tmp_path / "phone", golden, scores)
        manifest = json.loads((folder / "outputs.json").read_text())
        manifest["outputs"][0] |= changes
        (folder / "outputs.json").write_text(json.dumps(manifest))
        with pytest.raises(dkm.DkmError, match=message):
            dkm.validate_device_outputs([folder], golden)

    def test_a_link_out_of_the_folder(self, golden, scores, tmp_path):
        folder = give(tmp_path / "phone", golden, scores)
        (folder / "raw").rename(tmp_path / "elsewhere")
        (folder / "raw").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(dkm.DkmError, match="no file 'raw/outputs.0.bin' in the folder"):
            dkm.validate_device_outputs([folder], golden)

    @pytest.mark.parametrize("text", ["", "[" * 100_000, "3"])
    def test_a_manifest_that_is_no_json(self, golden, scores, tmp_path, text):
        folder = give(tmp_path / "phone", golden, scores)
        (folder / "outputs.json").write_text(text)
        with pytest.raises(dkm.DkmError, match=r"outputs\.json: "):
            dkm.validate_device_outputs([folder], golden)

    def test_a_folder_without_a_manifest(self, golden, tmp_path):
        with pytest.raises(FileNotFoundError, match="a folder of device outputs has one"):
            dkm.validate_device_outputs([tmp_path], golden)


class TestOneTensor:
    """Read from a folder by itself."""

    def read(self, folder, **changes):
        entry = TensorEntry(name="y", dtype="int16", shape=(2, 1), raw="y.bin")
        (folder / "y.bin").write_bytes(bytes([1, 0, 2, 1]))
        return _tensor(folder, replace(entry, **changes))

    def test_it_is_little_endian_in_the_machines_own_order(self, tmp_path):
        found = self.read(tmp_path)
        assert (found.tolist(), found.dtype) == ([[1], [258]], np.int16)
        assert (found.dtype.isnative, found.flags.writeable) == (True, True)
        assert self.read(tmp_path, dtype="uint8", shape=(4,)).tolist() == [1, 0, 2, 1]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"dtype": "complex64"},
                "y: dtype 'complex64'; it must be one of " + ", ".join(_DTYPES),
            ),
            ({"shape": (2, -1)}, "y: [2, -1] is not a valid shape"),
            ({"raw": "none.bin"}, "y: no file 'none.bin' in the folder"),
            ({"shape": (999, 3)}, "y.bin: 4 bytes; int16 of shape [999, 3] has 5,994"),
            ({"shape": (0,)}, "y.bin: 4 bytes; int16 of shape [0] has 0"),
        ],
    )
    def test_what_is_wrong_is_told(self, tmp_path, changes, message):
        with pytest.raises(dkm.DkmError) as caught:
            self.read(tmp_path, **changes)
        assert str(caught.value) == message

    def test_it_may_be_empty(self, tmp_path):
        (tmp_path / "none.bin").write_bytes(b"")
        assert self.read(tmp_path, shape=(0, 3), raw="none.bin").shape == (0, 3)
        with pytest.raises(dkm.DkmError, match=r"^y: \[0, 1\d+\] is not a valid shape$"):
            self.read(tmp_path, shape=(0, 10**30), raw="none.bin")


def test_the_header_is_told_in_whole(golden, scores, tmp_path):
    for place, (changes, message) in enumerate(
        [
            ({"format": "other"}, "format is 'other'; it must be 'dkm-deploy device outputs'"),
            ({"version": None}, "version is None; it must be 1"),
            (
                {"golden": "0"},
                f"these outputs are not for {golden}: its SHA256SUMS has another SHA-256",
            ),
            ({"outputs": [{}]}, "outputs[0].name is missing; it must be text"),
            ({"runtime": 3}, "runtime is 3; it must be text"),
        ]
    ):
        folder = give(tmp_path / str(place), golden, scores, **changes)
        with pytest.raises(dkm.DkmError) as caught:
            read_returned(folder, golden)
        assert str(caught.value) == f"{folder / 'outputs.json'}: {message}"
    found = read_returned(give(tmp_path / "right", golden, scores, newer=3), golden)
    assert found.runtime == "Core ML, iPhone"
    assert list(found.outputs) == ["output"]
