"""A golden bundle is read as it is written, and what is wrong with one is told; no model is run."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import fields

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import dkm_deploy as dkm
from dkm_deploy.errors import MissingFileError
from dkm_deploy.formats.interface import Feature, Interface
from dkm_deploy.model.checkpoint import save_palettes
from dkm_deploy.model.steps import Steps
from dkm_deploy.parity.reduced_precision import Arithmetic
from dkm_deploy.parity.rounding_noise import Noise
from dkm_deploy.validation.golden import bundle

INTERFACE = Interface(".onnx", (Feature("x", "float32", "(2, 3)"),), ())
PALETTE = dkm.Palette(np.array([0, 1, 1], np.uint8), np.array([[[0.0], [1.0]]], np.float32))
ARRAYS = {
    "inputs.x": np.arange(6, dtype=np.float32).reshape(2, 3),
    "outputs.y": np.arange(8, dtype=np.float32).reshape(2, 4),
    "original.y": np.ones((2, 4), np.float32),
    "labels": np.array([[3, 0], [1, 2]]),
}
DENSE = {
    "norm.running_mean": np.zeros(2, np.float32),
    "norm.running_var": np.ones(2, np.float32),
    "head.bias": np.ones(3, np.float32),
}
NOISE = {
    f"{kind}.samples": np.arange(n)
    for n, kind in enumerate(("float16", "float16-weights", "float32"))
}
ABOUT = {
    "format": "dkm-deploy golden bundle",
    "version": 1,
    "epsilons": {"norm": 1},
    "interface": {"suffix": ".onnx", "asked": INTERFACE.to_json()},
    "metric": "mean",
    "original_bytes": [40, 20],
    "limits": {"max_bytes": 9},
    "provenance": {"commit": 12},
    "recipe": "a = 1",
}


def _entry(key, array):
    group, _, name = key.partition(".")
    name, shape = name or group, list(array.shape)
    return {"name": name, "dtype": str(array.dtype), "shape": shape, "raw": f"raw/{key}.bin"}


def _bundle(folder, arrays=ARRAYS, about=ABOUT, dense=DENSE, noise=NOISE, **changes):
    """Write a bundle; changes are made to what bundle.json tells."""
    (folder / "raw").mkdir()
    groups = {
        group: [_entry(key, a) for key, a in arrays.items() if key.partition(".")[0] == group]
        for group in ("inputs", "outputs", "original", "labels")
    }
    for key, array in arrays.items():
        (folder / f"raw/{key}.bin").write_bytes(bundle.raw_bytes(array))
    (folder / "bundle.json").write_text(json.dumps(about | groups | changes))
    save_file(arrays, folder / "tensors.safetensors")
    save_palettes({"a": PALETTE}, folder / "palettes.safetensors")
    for name, tensors in (("dense", dense), ("noise", noise)):
        if tensors is not None:
            save_file(tensors, folder / f"{name}.safetensors")
    _sign(folder)
    return folder


def _sign(folder):
    parts = [p for p in folder.rglob("*") if p.is_file() and p.name != "SHA256SUMS"]
    lines = [
        f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder).as_posix()}\n"
        for p in parts
    ]
    (folder / "SHA256SUMS").write_text("".join(lines))


def test_everything_comes_back(tmp_path):
    found = bundle.read_bundle(_bundle(tmp_path))
    assert list(found.inputs) == ["x"]
    assert torch.equal(found.inputs["x"], torch.from_numpy(ARRAYS["inputs.x"]))
    assert list(found.outputs) == list(found.original) == ["y"]
    np.testing.assert_array_equal(found.outputs["y"], ARRAYS["outputs.y"])
    np.testing.assert_array_equal(found.original["y"], ARRAYS["original.y"])
    np.testing.assert_array_equal(found.labels, ARRAYS["labels"])
    assert (found.metric, found.original_bytes, found.steps) == ("mean", (40, 20), None)
    assert found.palettes == {"a": PALETTE}
    assert found.limits == dkm.Limits(max_bytes=9)
    assert found.provenance == {"commit": "12"}
    assert found.recipe == "a = 1"
    assert found.interface == INTERFACE
    assert found.dense.epsilons == {"norm": 1.0}
    assert type(found.dense.epsilons["norm"]) is float
    assert set(found.dense.tensors) == set(DENSE)
    np.testing.assert_array_equal(found.dense.tensors["head.bias"], DENSE["head.bias"])
    assert list(found.noise) == [
        Arithmetic("float16", "float16"),
        Arithmetic("float32", "float16"),
        Arithmetic("float32", "float32"),
    ]
    for count, (arithmetic, noise) in enumerate(found.noise.items()):
        assert isinstance(noise, Noise)
        assert (noise.arithmetic, len(noise.samples), noise.outputs) == (arithmetic, count, {})


def test_older_and_smaller_bundles_lack_some(tmp_path):
    arrays = {key: ARRAYS[key] for key in ("inputs.x", "outputs.y")}
    keys = ("format", "version", "limits", "provenance")
    about = {key: ABOUT[key] for key in keys} | {"metric": None, "original_bytes": None}
    found = bundle.read_bundle(_bundle(tmp_path, arrays, about, None, None))
    assert (found.original, found.labels, found.metric) == ({}, None, None)
    assert (found.original_bytes, found.recipe, found.steps) == (None, "", None)
    assert (found.interface, found.dense, found.noise) == (None, None, {})


def test_steps_are_split_and_what_they_give_is_put_in_a_row(tmp_path):
    arrays = {
        "inputs.x": np.arange(12.0).reshape(2, 3, 2),
        "outputs.y": np.arange(24.0).reshape(2, 3, 4),
        "original.y": np.ones((2, 3, 4)),
        "labels": np.arange(6),
    }
    found = bundle.read_bundle(_bundle(tmp_path, arrays, noise=None, steps=2))
    assert isinstance(found.inputs, Steps)
    assert [step["x"].tolist() for step in found.inputs] == arrays["inputs.x"].tolist()
    assert found.steps == 2
    np.testing.assert_array_equal(found.outputs["y"], np.arange(24.0).reshape(6, 4))
    assert found.original["y"].shape == (6, 4)


def _without(key):
    return {k: v for k, v in ABOUT.items() if k != key}


IT = "it must be 'dkm-deploy golden bundle'"
LIMITS = ", ".join(field.name for field in fields(dkm.Limits))
X = {"name": "x", "dtype": "float32", "shape": [2, 3], "raw": "raw/inputs.x.bin"}
OF_STEPS = {key: ARRAYS[key] for key in ("inputs.x", "outputs.y", "original.y")}
NOT_AS_TOLD = "inputs 'x' does not match the manifest"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, f"format is 'other'; {IT}"),
        ({"version": 2}, "version is 2; it must be 1"),
        ({"version": 2, "inputs": 3}, "version is 2; it must be 1"),
        ({"about": _without("version")}, "version is missing; it must be 1"),
        ({"about": _without("format")}, f"format is missing; {IT}"),
        ({"about": _without("metric")}, "metric is missing; it must be text or null"),
        ({"about": _without("epsilons")}, "epsilons is missing; dense.safetensors needs it"),
        ({"about": _without("limits")}, "limits is missing; it must be a value"),
        ({"limits": {"novel": 3}}, f"limits: unknown key 'novel'; known keys are {LIMITS}"),
        ({"about": _without("provenance")}, "provenance is missing; it must be a mapping"),
        ({"inputs": []}, "it has no inputs or no outputs"),
        ({"outputs": []}, "it has no inputs or no outputs"),
        ({"inputs": [X | {"name": "z"}]}, "inputs 'z' does not match the manifest"),
        ({"inputs": [X | {"dtype": "float64"}]}, NOT_AS_TOLD),
        ({"inputs": [X | {"shape": [3, 2]}]}, NOT_AS_TOLD),
        ({"inputs": [X | {"raw": "raw/other.bin"}]}, NOT_AS_TOLD),
        ({"original_bytes": [1]}, "original_bytes is [1]; it must be a list of 2"),
        ({"interface": {"suffix": ".onnx"}}, "interface.asked is missing; it must be text"),
        (
            {"interface": {"asked": INTERFACE.to_json()}},
            "interface.suffix is missing; it must be text",
        ),
        ({"epsilons": {"head": 1}}, "dense.safetensors lacks the statistics of 'head'"),
        (
            {"dense": DENSE | {"norm.weight": np.ones(3, np.float32)}},
            "dense.safetensors lacks the statistics of 'norm'",
        ),
        (
            {"noise": {k: v for k, v in NOISE.items() if k != "float16-weights.samples"}},
            "noise.safetensors holds no noise of float32 with float16 weights",
        ),
        ({"arrays": ARRAYS | {"labels": np.arange(3)}}, "labels of shape (3,) for 2 inputs"),
        ({"arrays": ARRAYS | {"labels": np.array(3)}}, "labels of shape () for 2 inputs"),
        ({"steps": 3, "arrays": OF_STEPS}, "it has 2 steps, but its manifest says 3"),
        (
            {"steps": 2, "arrays": OF_STEPS | {"outputs.y": np.ones((3, 2, 4))}},
            "output 'y' has shape (3, 2, 4), not that of 2 steps",
        ),
        (
            {"steps": 2, "arrays": OF_STEPS | {"original.y": np.ones(2)}},
            "output 'y' has shape (2,), not that of 2 steps",
        ),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(tmp_path, changes, message):
    with pytest.raises(dkm.DkmError) as caught:
        bundle.read_bundle(_bundle(tmp_path, **changes))
    assert str(caught.value) == f"{tmp_path / 'bundle.json'}: {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON: Expecting property name enclosed in double quotes: line 1"),
        ("[" * 100_000, "not JSON: "),
        ("3", "it is 3; it must be a mapping with the keys format, version, inputs"),
    ],
)
def test_a_manifest_that_is_none(tmp_path, text, message):
    (_bundle(tmp_path) / "bundle.json").write_text(text)
    _sign(tmp_path)
    with pytest.raises(dkm.DkmError) as caught:
        bundle.read_bundle(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'bundle.json'}: {message}")


class TestSums:
    def test_a_line_that_is_none(self, tmp_path):
        (_bundle(tmp_path) / "SHA256SUMS").write_text(f"{'x' * 100}\n")
        with pytest.raises(dkm.DkmError) as caught:
            bundle.read_bundle(tmp_path)
        told = f"{tmp_path / 'SHA256SUMS'}: not a line of checksums: {'x' * 80!r}"
        assert str(caught.value) == told

    @pytest.mark.parametrize("name", ["bundle.json", "tensors.safetensors", "palettes.safetensors"])
    def test_the_parts_that_every_bundle_has_are_listed(self, tmp_path, name):
        sums = _bundle(tmp_path) / "SHA256SUMS"
        lines = [line for line in sums.read_text().splitlines() if not line.endswith(name)]
        sums.write_text("\n".join(lines))  # its last line without an end
        with pytest.raises(dkm.DkmError) as caught:
            bundle.read_bundle(tmp_path)
        assert str(caught.value) == f"{sums}: {name} is not listed, so it cannot be verified"

    def test_a_file_that_changed_or_is_gone(self, tmp_path):
        raw = _bundle(tmp_path) / "raw/labels.bin"
        raw.write_bytes(b"other")
        with pytest.raises(dkm.DkmError) as caught:
            bundle.read_bundle(tmp_path)
        changed = "changed since the bundle was written (its SHA-256 differs)"
        assert str(caught.value) == f"{raw}: {changed}"
        raw.unlink()
        with pytest.raises(MissingFileError) as caught:
            bundle.read_bundle(tmp_path)
        assert str(caught.value) == f"{raw}: the bundle lists it, but it is missing"


class TestText:
    def test_it_is_read_as_utf_8(self, tmp_path):
        path = tmp_path / "text"
        path.write_bytes("é\r\n".encode())
        assert bundle.read_text(path) == "é\r\n"
        path.write_bytes(b"\xff")
        with pytest.raises(dkm.DkmError) as caught:
            bundle.read_text(path)
        told = "not text: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"
        assert str(caught.value) == f"{path}: {told}"

    def test_it_is_a_file_and_no_link(self, tmp_path):
        path, link = tmp_path / "text", tmp_path / "link"
        path.write_text("")
        link.symlink_to(path)
        for wrong in (tmp_path, link, tmp_path / "none"):
            with pytest.raises(MissingFileError) as caught:
                bundle.read_text(wrong)
            assert str(caught.value) == f"{wrong}: no such file; a golden bundle has one"
        with pytest.raises(MissingFileError, match=": no such file; a folder has one$"):
            bundle.read_text(link, "a folder")

    def test_it_ends_at_16_mib(self, tmp_path):
        path = tmp_path / "text"
        path.touch()
        os.truncate(path, 1 << 24)
        assert len(bundle.read_text(path)) == 1 << 24
        os.truncate(path, (1 << 24) + 1)
        with pytest.raises(dkm.DkmError) as caught:
            bundle.read_text(path)
        assert str(caught.value) == f"{path}: 16,777,217 bytes are too many for this file"


def test_a_folder_holds_what_is_in_it(tmp_path):
    (tmp_path / "a").write_text("")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "c").mkdir()
    names = ("a", "b", "c", "d", "c/../a", "x" * 3000)
    assert [bundle.has_file(tmp_path, name) for name in names] == [True, *[False] * 5]
    relative = os.path.relpath(tmp_path)
    assert bundle.has_file(type(tmp_path)(relative), "a")


def test_raw_bytes_are_little_endian_and_in_c_order():
    array = np.array([[1, 2], [3, 4]], ">u2")
    assert bundle.raw_bytes(array) == bytes([1, 0, 2, 0, 3, 0, 4, 0])
    assert bundle.raw_bytes(array.T) == bytes([1, 0, 3, 0, 2, 0, 4, 0])


def test_a_sum_is_that_of_the_whole_file(tmp_path):
    content = bytes(range(256)) * 5000  # more than is read at a time
    (tmp_path / "file").write_bytes(content)
    assert bundle.sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_outputs_of_steps_go_there_and_back():
    array = np.arange(24).reshape(6, 4)
    stepped = bundle.by_step({"y": array}, 2)
    np.testing.assert_array_equal(stepped["y"], array.reshape(2, 3, 4))
    np.testing.assert_array_equal(bundle.in_a_row(stepped, 2)["y"], array)
    assert bundle.in_a_row(stepped, None) == stepped
    assert bundle.in_a_row({"y": np.ones((2, 3))}, 2)["y"].shape == (6,)
