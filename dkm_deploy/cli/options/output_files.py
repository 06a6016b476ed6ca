"""The files that a command is to write."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dkm_deploy.errors import DkmError


def check_outputs(paths: Iterable[Path], *, force: bool) -> None:
    """Raise DkmError before anything is done if one could not be written, or is named twice."""
    from dkm_deploy._support.atomic_files import check_writable

    seen: set[Path] = set()
    for path in paths:
        check_writable(path, force=force)
        if path.absolute() in seen:
            raise DkmError(f"{path}: given twice; one file would replace the other")
        seen.add(path.absolute())
