"""TOML files that users write: the record that one holds, and the text of a record."""

from __future__ import annotations

import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import tomli_w

from dkm_deploy._support.paths import existing_file, translate_read_errors
from dkm_deploy._support.records import from_plain
from dkm_deploy.errors import DkmError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_T = TypeVar("_T")


def read_toml(path: str | Path, kind: type[_T], what: str) -> _T:
    """The record that a file holds.

    Args:
        path: the file.
        kind: of the record; see :func:`dkm_deploy._support.records.from_plain`.
        what: the file is, for the message where there is none: "recipe".

    Raises:
        DkmError: the file is missing or not TOML, or holds no such record.
    """
    path = existing_file(path, kind=f"{what} file")
    with translate_read_errors(path):
        content = path.read_bytes()
    try:
        table = tomllib.loads(content.decode("utf-8"))
    # Not only tomllib's own: numbers of thousands of digits, and tables without end.
    except (ValueError, RecursionError) as error:
        raise DkmError(f"{path}: not a TOML file: {error}") from error
    try:
        return from_plain(table, kind)
    except DkmError as error:
        raise DkmError(f"{path}: {error}") from error


def toml_text(record: DataclassInstance) -> str:
    """A record as the text of a TOML file."""
    return tomli_w.dumps(_without_none(asdict(record)))


def _without_none(value: Any) -> Any:
    """TOML has no null: keys that are None are left out, at any depth."""
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_without_none(item) for item in value]
    return value
