"""Files of Core AI assets, and what is said of those that are missing or changed."""

import json
from pathlib import Path

import pytest

from dkm_deploy.errors import DkmError, MissingFileError
from dkm_deploy.formats.aimodel.asset import open_asset
from dkm_deploy.runtimes.core_ai import packages
from tests.formats.aimodel.mlir_bytecode import asset


@pytest.fixture
def path(tmp_path):
    return asset(tmp_path / "m.aimodel", b"program", {"a": "é"})


def message(path, kind=DkmError):
    """Of the refusal, which is of this kind and no other."""
    with pytest.raises(DkmError) as caught:
        open_asset(path)
    assert type(caught.value) is kind
    return str(caught.value)


def test_an_asset_is_its_program_and_its_metadata(path):
    (path / "metadata.json").write_text('{"a": "é"}', "utf-8")
    found = open_asset(path)
    assert (found.path, found.program, found.metadata) == (path, b"program", {"a": "é"})


def test_nothing_there(tmp_path):
    path = tmp_path / "m.aimodel"
    assert message(path, MissingFileError) == f"{path}: no such file or folder"


def test_a_file(tmp_path):
    path = tmp_path / "m.aimodel"
    path.write_bytes(b"")
    expected = f"{path}: not a folder; a Core AI asset is a folder named .aimodel"
    assert message(path) == expected


@pytest.mark.parametrize("name", ["main.mlirb", "main.hash", "metadata.json"])
def test_a_missing_file(path, name):
    (path / name).unlink()
    expected = f"{path / name}: missing, so this is not a whole Core AI asset"
    assert message(path, MissingFileError) == expected


def test_a_file_that_cannot_be_read(path, monkeypatch):
    def fails(file):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", fails)
    assert message(path) == f"{path}/main.mlirb: cannot be read: Input/output error"


def test_another_program_than_the_one_of_the_digest(path):
    (path / "main.mlirb").write_bytes(b"another")
    assert message(path) == (
        f"{path}: main.mlirb is not the program whose SHA-256 is in main.hash; "
        "the asset is damaged or was changed"
    )


DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    ("content", "start"),
    [
        (b"{", "not JSON: Expecting property name"),
        (b"\xff", "not JSON: 'utf-8' codec can't"),
        (DEEP, "not JSON: maximum recursion depth"),
        (b"[]", "it is []; it must be a mapping"),
    ],
)
def test_metadata_that_is_no_object(path, content, start):
    (path / "metadata.json").write_bytes(content)
    assert message(path).startswith(f"{path}/metadata.json: {start}")


def test_an_object_of_any_values(path):
    table = {"a": [1, None], "b": {"c": 2}}
    (path / "metadata.json").write_text(json.dumps(table))
    assert open_asset(path).metadata == table


def test_the_first_package_that_is_missing_is_named_as_pip_has_it():
    expected = (
        "Core AI needs the package no-such-package, which is missing: "
        'pip install "dkm-deploy[coreai]"'
    )
    assert packages.missing_package("json", "no_such_package", "nor_this") == expected
    assert packages.missing_package("json", "pathlib") is None
    packages.require("json")
    with pytest.raises(DkmError) as caught:
        packages.require("json", "no_such_package")
    assert str(caught.value) == expected
