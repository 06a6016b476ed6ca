"""Packages and weight files written byte by byte: what is read, and what is said of the rest."""

import importlib.util
import json
import struct
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from dkm_deploy.errors import DkmError, MissingFileError
from dkm_deploy.formats.mlpackage import proto
from dkm_deploy.formats.mlpackage.package import open_package
from dkm_deploy.formats.mlpackage.weight_blobs import find_blob

FP32, UINT8 = 2, 3  # element types in weight files


def weight_file(path, *, version=2, magic=0xDEADBEEF, dtype=FP32, length=8, start=128, size=136):
    """A file of one weight, whose record lies behind the header."""
    header = struct.pack("<II", 1, version).ljust(64, b"\0")
    record = struct.pack("<IIQQ", magic, dtype, length, start).ljust(64, b"\0")
    path.write_bytes((header + record + bytes(range(16))).ljust(size, b"\0")[:size])
    return path


def refusal(call, *arguments, kind=DkmError):
    """The message of what a call raises, which is of this kind and no other."""
    with pytest.raises(DkmError) as caught:
        call(*arguments)
    assert type(caught.value) is kind
    return str(caught.value)


def test_a_weight_that_fills_its_file(tmp_path):
    file = weight_file(tmp_path / "weight.bin")
    blob = find_blob(file, 64)
    assert (blob.file, blob.dtype.name, blob.start, blob.size_bytes) == (file, "fp32", 128, 8)
    assert blob.read().tobytes() == bytes(range(8))
    assert not blob.read().flags.writeable


def test_an_empty_weight_at_the_end_of_its_file(tmp_path):
    blob = find_blob(weight_file(tmp_path / "weight.bin", length=0, size=128), 64)
    found = blob.read()
    assert (found.shape, found.dtype) == ((0,), np.uint8)


def filled(start, stop):
    """What is said of the weight at byte 64 that should be there."""
    where = f"should fill bytes {start} to {stop}, but the file has 136 bytes"
    return f"the weight at byte 64 {where}; it is cut short or damaged"


@pytest.mark.parametrize(
    ("changes", "offset", "message"),
    [
        ({}, 63, "a weight at byte 63 lies outside its 136 bytes"),
        ({}, 73, "a weight at byte 73 lies outside its 136 bytes"),
        ({"version": 3}, 64, "weight file version 3; only version 2 is supported"),
        ({"magic": 1}, 64, "no weight starts at byte 64, where the program expects one"),
        ({"length": 9}, 64, filled(128, 137)),
        ({"start": 127}, 64, filled(127, 135)),
    ],
)
def test_weights_that_are_not_there(tmp_path, changes, offset, message):
    file = weight_file(tmp_path / "weight.bin", **changes)
    assert refusal(find_blob, file, offset) == f"{file}: {message}"


def test_no_weight_file(tmp_path):
    file = tmp_path / "weight.bin"
    assert refusal(find_blob, file, 64, kind=MissingFileError) == f"{file}: no such weight file"


MANIFEST = {"rootModelIdentifier": "a", "itemInfoEntries": {"a": {"path": "é.mlmodel"}}}


@pytest.fixture
def package(tmp_path):
    """The smallest that opens."""
    path = tmp_path / "m.mlpackage"
    (path / "Data").mkdir(parents=True)
    (path / "Manifest.json").write_text(json.dumps(MANIFEST, ensure_ascii=False), "utf-8")
    model = proto.model_class()()
    model.mlProgram.SetInParent()
    (path / "Data/é.mlmodel").write_bytes(model.SerializeToString())
    return path


def test_the_model_and_the_weight_files_of_a_package(package):
    opened = open_package(package)
    assert (opened.path, opened.model_file) == (package, package / "Data/é.mlmodel")
    assert opened.weight_file("@model_path/weights/a.bin") == package / "Data/weights/a.bin"
    assert (opened.user_metadata, opened.weight_names) == ({}, {})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.bin", "weight file 'a.bin' does not start with @model_path/"),
        ("@model_path/../../a", "refers to '../../a', which lies outside the package"),
        (
            "@model_path/a\0b",
            "refers to 'a\\x00b', which is not a file name: embedded null byte",
        ),
    ],
)
def test_weight_files_that_a_package_cannot_have(package, name, message):
    opened = open_package(package)
    assert refusal(opened.weight_file, name) == f"{package}: {message}"


COMPILED = (
    "a compiled model (.mlmodelc), which only Core ML reads; "
    "give the .mlpackage that it was compiled from"
)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("coremldata.bin", "", f": {COMPILED}"),
        (
            *("Manifest.json", "{}"),
            "/Manifest.json: not a valid manifest: rootModelIdentifier is missing; it must be text",
        ),
        (
            *("Manifest.json", json.dumps(MANIFEST).replace('"\\u00e9.mlmodel"', "7")),
            "/Manifest.json: not a valid manifest: itemInfoEntries['a'].path is 7; it must be text",
        ),
        ("Data/é.mlmodel", "\x7f", "/Data/é.mlmodel: not a Core ML model: Error parsing message"),
        (
            *("Data/é.mlmodel", ""),
            (
                "/Data/é.mlmodel: holds no model, not an ML program; "
                "convert with a deployment target of iOS16 / macOS13 or later"
            ),
        ),
    ],
)
def test_packages_that_do_not_open(package, file, content, message):
    (package / file).write_text(content)
    assert refusal(open_package, package).startswith(f"{package}{message}")


def test_what_is_no_package(package, tmp_path):
    missing = package / "Data/é.mlmodel"
    missing.unlink()
    assert refusal(open_package, package, kind=MissingFileError) == (
        f"{missing}: the manifest names this model file; it is missing"
    )
    (package / "Manifest.json").unlink()
    assert refusal(open_package, package, kind=MissingFileError) == (
        f"{package}/Manifest.json: missing, so this is not a Core ML package"
    )
    compiled, file = tmp_path / "m.mlmodelc", tmp_path / "n.mlpackage"
    assert refusal(open_package, file, kind=MissingFileError) == f"{file}: no such file or folder"
    compiled.mkdir()
    assert refusal(open_package, compiled) == f"{compiled}: {COMPILED}"
    file.write_bytes(b"")
    assert refusal(open_package, file) == (
        f"{file}: not a folder; a Core ML package is a folder named .mlpackage"
    )


def test_links_that_stay_in_the_package(package, tmp_path):
    (package / "again").symlink_to(package / "Data")
    open_package(package)
    (package / "Data/out").symlink_to(tmp_path)
    expected = f"{package}: 'Data/out' is a link to a place outside the package"
    assert refusal(open_package, package) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", ": not JSON: Expecting property name enclosed in double quotes: line 1 column 2"),
        ("[]", " is []; it must be a mapping"),
        ('{"a": 1}', "['a'] is 1; it must be text"),
    ],
)
def test_names_of_weights_that_cannot_be_read(package, text, message):
    opened = open_package(package)
    opened.model.description.metadata.userDefined["dkm_deploy.weights"] = text
    found = refusal(lambda: opened.weight_names)
    assert found.startswith(f"{package}: metadata 'dkm_deploy.weights'{message}")


@pytest.mark.parametrize("spec", [None, SimpleNamespace(submodule_search_locations=[])])
def test_without_coremltools_it_is_named(monkeypatch, spec):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    expected = "Core ML files need coremltools, which is missing: pip install coremltools"
    assert refusal(proto.coremltools.__wrapped__) == expected


def test_the_protobuf_classes_are_loaded_from_the_files_of_coremltools(monkeypatch):
    """As when nothing is loaded yet, and again when all is."""
    for name in [name for name in sys.modules if name.startswith(proto._ALIAS)]:
        monkeypatch.delitem(sys.modules, name)
    load = proto.model_class.__wrapped__
    first = load()
    assert sys.modules[proto._ALIAS].__name__ == proto._ALIAS
    assert first.DESCRIPTOR.full_name == "CoreML.Specification.Model"
    loaded = sys.modules[proto._ALIAS]
    assert load() is first
    assert sys.modules[proto._ALIAS] is loaded
