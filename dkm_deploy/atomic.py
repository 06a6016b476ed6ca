"""Write a file or a folder, and the files that belong to it, whole or not at all."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dkm_deploy.errors import DkmError, OutputExistsError

_OLD = ".old"


@contextmanager
def written_whole(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Give a path to write to, and move what was written to ``path`` when all went well.

    The path given has the name of ``path`` and lies alone in a new folder beside it, called
    ``.<name>.<8 digits>``. Other files that the block writes there, such as one with the
    weights, belong to it and are moved beside ``path`` with it.

    If the block raises, all is as it was before. If the process is killed, ``path`` is the old one,
    the new one or, between two of the renames that several files need, not there: never one file
    with another's companions. The folder stays then, and holds what had been moved out of the way.

    Args:
        path: the file or folder to be made; parent folders are made too.
        force: replace what is there.

    Raises:
        OutputExistsError: ``path`` or a companion exists and ``force`` is not set.
        DkmError: the parent cannot be made, or a folder and a file would replace each other.
    """
    check_writable(path, force=force)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DkmError(f"{path.parent}: cannot make this folder: {error.strerror}") from error
    folder = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    folder.mkdir()
    try:
        yield folder / path.name
        _publish(folder, path, force=force)
    finally:
        remove(folder)


def _publish(folder: Path, path: Path, *, force: bool) -> None:
    """Move the new ``path`` and its companions out of ``folder``."""
    companions = sorted(part.name for part in folder.iterdir() if part.name != path.name)
    for name in companions:
        check_writable(path.with_name(name), force=force)
    main = folder / path.name
    if path.exists() and path.is_dir() != main.is_dir():
        raise DkmError(f"{path}: a file and a folder do not replace each other; remove it first")
    if not companions and not main.is_dir():
        main.replace(path)  # one step
        return
    names = [*companions, path.name]
    old = folder / _OLD
    old.mkdir()
    try:
        # The main file goes first and comes last: it is never there with another's companions.
        for name in reversed(names):
            if path.with_name(name).exists():
                path.with_name(name).rename(old / name)
        for name in names:
            (folder / name).rename(path.with_name(name))
    except BaseException:
        for name in names:
            if not (folder / name).exists():  # it was moved
                remove(path.with_name(name))
            if (old / name).exists():
                (old / name).rename(path.with_name(name))
        raise


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
