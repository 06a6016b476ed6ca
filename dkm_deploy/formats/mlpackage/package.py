"""Open a ``.mlpackage`` read-only: manifest, model file, and what lies beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from dkm_deploy._support.argument_checks import short
from dkm_deploy._support.paths import translate_read_errors
from dkm_deploy._support.records import from_json
from dkm_deploy.errors import DkmError, MissingFileError
from dkm_deploy.formats.mlpackage.proto import model_class

_T = TypeVar("_T")

_MANIFEST = "Manifest.json"
_MODEL_FOLDER = "@model_path/"
_COMPILED_FILE = "coremldata.bin"

COMPILED = (
    "a compiled model (.mlmodelc), which only Core ML reads; "
    "give the .mlpackage that it was compiled from"
)

WEIGHT_NAMES_KEY = "dkm_deploy.weights"
"""User-defined metadata: JSON, the qualified parameter name by the MIL name of its weight."""


@dataclass(frozen=True)
class _Item:
    path: str


@dataclass(frozen=True)
class _Manifest:
    """What ``Manifest.json`` has, by Apple's names."""

    rootModelIdentifier: str  # noqa: N815
    itemInfoEntries: Mapping[str, _Item]  # noqa: N815


@dataclass(frozen=True)
class Package:
    """An opened package. Nothing in it is ever written.

    Attributes:
        path: its folder.
        model_file: the protobuf file in it.
        model: the parsed ``CoreML.Specification.Model``, an ML program.
    """

    path: Path
    model_file: Path
    model: Any

    def weight_file(self, name: str) -> Path:
        """The file a program calls ``@model_path/..``. Raises DkmError if outside the package."""
        if not name.startswith(_MODEL_FOLDER):
            raise DkmError(f"{self.path}: weight file {name!r} does not start with {_MODEL_FOLDER}")
        folder = self.model_file.parent
        return _inside(self.path, folder, name.removeprefix(_MODEL_FOLDER))

    @property
    def user_metadata(self) -> dict[str, str]:
        """The user-defined metadata of the model."""
        return dict(self.model.description.metadata.userDefined)

    @property
    def weight_names(self) -> dict[str, str]:
        """Qualified parameter name by MIL name, for what the package says it of.

        Raises:
            DkmError: what it says cannot be read.
        """
        return self.metadata(WEIGHT_NAMES_KEY, str)

    def metadata(self, key: str, kind: type[_T]) -> dict[str, _T]:
        """By name, what the user-defined metadata ``key``, JSON, has; empty where it is absent.

        Raises:
            DkmError: it is not JSON, or not of values of ``kind``.
        """
        text = self.user_metadata.get(key, "{}")
        try:
            values = dict[str, kind]  # type: ignore[valid-type]  # known at run time alone
            return from_json(text, values, f"metadata {key!r}", more_keys=True)
        except DkmError as error:
            raise DkmError(f"{self.path}: {error}") from error


def open_package(path: Path) -> Package:
    """Open a package.

    Raises:
        DkmError: it is not a folder, it is a compiled model, its manifest is missing, not valid or
            points outside, its model file does not parse, or the model is not an ML program.
    """
    if not path.exists():
        raise MissingFileError(f"{path}: no such file or folder")
    if path.suffix == ".mlmodelc" or (path / _COMPILED_FILE).exists():
        raise DkmError(f"{path}: {COMPILED}")
    if not path.is_dir():
        raise DkmError(f"{path}: not a folder; a Core ML package is a folder named .mlpackage")
    _check_links(path)
    model_file = _inside(path, path / "Data", _root_item(path / _MANIFEST))
    if not model_file.is_file():
        raise MissingFileError(f"{model_file}: the manifest names this model file; it is missing")
    return Package(path, model_file, _parse(model_file))


def _check_links(package: Path) -> None:
    """Raise DkmError for a link out of the package; what it leads to would be read and weighed."""
    root = os.path.realpath(package)
    for part in package.rglob("*"):
        if part.is_symlink() and not Path(os.path.realpath(part)).is_relative_to(root):
            name = part.relative_to(package)
            raise DkmError(f"{package}: {str(name)!r} is a link to a place outside the package")


def _root_item(manifest: Path) -> str:
    """The path of the model file that a manifest gives, relative to the folder Data."""
    if not manifest.is_file():
        raise MissingFileError(f"{manifest}: missing, so this is not a Core ML package")
    with translate_read_errors(manifest):
        content = manifest.read_bytes()
    try:
        table = from_json(content, _Manifest, more_keys=True)
    except DkmError as error:
        raise DkmError(f"{manifest}: not a valid manifest: {error}") from error
    root = table.rootModelIdentifier
    if root not in table.itemInfoEntries:
        raise DkmError(f"{manifest}: not a valid manifest: it has no item {short(root)}")
    return table.itemInfoEntries[root].path


def _inside(package: Path, folder: Path, name: str) -> Path:
    target = folder / name
    try:
        inside = target.resolve().is_relative_to(package.resolve())
        target.is_file()  # raises for names that no file can have
    except (ValueError, OSError) as error:
        raise DkmError(
            f"{package}: refers to {name!r}, which is not a file name: {error}"
        ) from error
    if not inside:
        raise DkmError(f"{package}: refers to {name!r}, which lies outside the package")
    return target


def _parse(model_file: Path) -> Any:
    model = model_class()()
    try:
        model.ParseFromString(model_file.read_bytes())
    except (DecodeError, OSError) as error:
        raise DkmError(f"{model_file}: not a Core ML model: {error}") from error
    kind = model.WhichOneof("Type")
    if kind != "mlProgram":
        raise DkmError(
            f"{model_file}: holds {kind or 'no model'}, not an ML program; "
            "convert with a deployment target of iOS16 / macOS13 or later"
        )
    return model
