"""Read a TOML file that a user wrote, or say in one line why it cannot be read."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from dkm_deploy._support.paths import existing_file, reading
from dkm_deploy.errors import DkmError

_T = TypeVar("_T")


def read_toml(path: str | Path, kind: str, parse: Callable[[dict[str, Any]], _T]) -> _T:
    """What ``parse`` makes of the table in a file.

    Args:
        path: the file.
        kind: what the file is, for the message where there is none: "recipe".
        parse: its own errors are DkmError, and get the path in front.

    Raises:
        DkmError: the file is missing or not TOML, or ``parse`` refuses the table.
    """
    path = existing_file(path, kind=f"{kind} file")
    with reading(path):
        content = path.read_bytes()
    try:
        return parse(tomllib.loads(content.decode("utf-8")))
    except DkmError as error:
        raise DkmError(f"{path}: {error}") from error
    # Not only tomllib's own: numbers of thousands of digits, and tables without end.
    except (ValueError, RecursionError) as error:
        raise DkmError(f"{path}: not a TOML file: {error}") from error
