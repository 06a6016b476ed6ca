"""Write a file or a folder whole or not at all."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dkm_deploy.errors import DkmError, OutputExistsError


@contextmanager
def written_whole(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Give a path beside ``path`` to write to, and rename it to ``path`` when all went well.

    If the block raises, or the process is killed in it, ``path`` is as it was before.

    Args:
        path: the file or folder to be made; parent folders are made too.
        force: replace what is there.

    Raises:
        OutputExistsError: ``path`` exists and ``force`` is not set.
        DkmError: the parent cannot be made, or a folder and a file would replace each other.
    """
    check_writable(path, force=force)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DkmError(f"{path.parent}: cannot make this folder: {error.strerror}") from error
    # The suffix is kept: some writers look at it.
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        yield temporary
        if temporary.is_dir() and path.exists():
            aside = temporary.with_name(temporary.name + ".old")
            path.rename(aside)
            temporary.rename(path)
            remove(aside)
        else:
            temporary.replace(path)
    finally:
        remove(temporary)


def check_writable(path: Path, *, force: bool) -> None:
    """Raise OutputExistsError if ``path`` exists and ``force`` is not set."""
    if path.exists() and not force:
        raise OutputExistsError(f"{path}: already exists; use --force (force=True) to replace it")


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
