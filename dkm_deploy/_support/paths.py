"""Paths that users give: told apart from what is none, and read with an error of one line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from dkm_deploy._support.argument_checks import short
from dkm_deploy.errors import (
    ArgumentError,
    DkmError,
    MissingFileError,
    UnreadableFileError,
    refused_by_system,
)


def path_of(value: Any, what: str = "path") -> Path:
    """``value`` as a path.

    Args:
        value: a str or a path-like object.
        what: the argument's name, for the message.

    Raises:
        DkmError: it is neither, or no name that a file can have.
    """
    text = os.fspath(value) if isinstance(value, (str, PathLike)) else None
    if not isinstance(text, str):
        raise ArgumentError(f"{what} is {short(value)}; give a str or a path")
    if not text or "\0" in text:
        raise DkmError(f"{what} is {text!r}; give the name of a file or a folder")
    return Path(text)


def paths_of(values: Any, what: str) -> list[Path]:
    """Several paths; a lone one stands for itself. Raises DkmError for what is no path."""
    if isinstance(values, (str, PathLike)):
        return [path_of(values, what)]
    if not isinstance(values, Iterable) or isinstance(values, Mapping):
        raise ArgumentError(f"{what} is {short(values)}; give a path or a list of paths")
    return [path_of(value, what) for value in values]


def existing_path(value: Any, what: str = "path") -> Path:
    """A path, once it is known that there is a file or a folder.

    Raises:
        MissingFileError: there is nothing, or a link that leads nowhere.
        UnreadableFileError: the system does not let one look.
        DkmError: it is no path, or leads to a pipe or a device.
    """
    path = path_of(value, what)
    with translate_read_errors(path):
        if not path.exists():
            raise MissingFileError(f"{path}: no such file or folder")
        if not (path.is_file() or path.is_dir()):
            raise DkmError(f"{path}: neither a file nor a folder; give one of these")
    return path


def existing_file(value: Any, what: str = "path", kind: str = "file") -> Path:
    """A path, once it is known that there is a file; raises as :func:`existing_path`."""
    path = path_of(value, what)
    with translate_read_errors(path):
        if path.is_dir():
            raise DkmError(f"{path}: a folder; give a {kind}")
        if path.exists() and not path.is_file():
            raise DkmError(f"{path}: a pipe or a device; give a {kind}")
        if not path.is_file():
            raise MissingFileError(f"{path}: no such {kind}")
    return path


@contextmanager
def translate_read_errors(path: Path) -> Iterator[None]:
    """Turn the system's refusal to read what is at ``path`` into UnreadableFileError."""
    try:
        yield
    except DkmError:
        raise
    except OSError as error:
        told = refused_by_system(error)
        raise UnreadableFileError(f"{path}: cannot be read: {told}") from error
