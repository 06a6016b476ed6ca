"""Write a file or a folder, and the files that belong to it, whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dkm_deploy.errors import DkmError, OutputExistsError, UnwritableFileError, refused_by_system

_OLD = ".old"
_NAME_BYTES = 200  # of a temporary folder's name, so that it is no longer than any file's may be
# What a file system says that has no hard links.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)


@contextmanager
def atomic_path(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Give a path to write to, and move what was written to ``path`` when all went well.

    The path given has the name of ``path`` and lies alone in a new folder beside it, called
    ``.<name>.<8 digits>``. Other files that the block writes there, such as one with the
    weights, belong to it and are moved beside ``path`` with it.

    If the block raises, all is as it was before. If the process is killed, ``path`` is the old one,
    the new one or, between two of the renames that several files need, not there: never one file
    with another's companions. The folder stays then, and holds what had been moved out of the way.
    Without ``force`` nothing is replaced, not even what another program made meanwhile.

    Args:
        path: the file or folder to be made; parent folders are made too.
        force: replace what is there.

    Raises:
        OutputExistsError: ``path`` or a companion exists and ``force`` is not set.
        UnwritableFileError: the system does not let it be written: the disk is full, a folder
            read-only, a name too long.
        DkmError: ``path`` has no name, or a folder and a file would replace each other.
    """
    check_writable(path, force=force)
    made = [parent for parent in (path.parent, *path.parent.parents) if not parent.exists()]
    try:
        with _translate_write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            folder = path.with_name(_temporary_name(path.name))
            folder.mkdir()
        try:
            with _translate_write_errors(path, folder):
                yield folder / path.name
                with _alone(path.parent):
                    _publish(folder, path, force=force)
        except BaseException:
            if not (folder / _OLD).exists():  # else it holds what could not be moved back
                remove(folder)
            raise
        remove(folder)
    except BaseException:
        for parent in made:
            with suppress(OSError):  # it was not made, or others have put something there
                parent.rmdir()
        raise


def _temporary_name(name: str) -> str:
    short = name.encode("utf-8", "surrogateescape")[:_NAME_BYTES].decode("utf-8", "ignore")
    return f".{short}.{uuid.uuid4().hex[:8]}"


@contextmanager
def _translate_write_errors(path: Path, folder: Path | None = None) -> Iterator[None]:
    """Turn the system's refusal to write ``path`` into UnwritableFileError.

    Errors tell of files in ``folder``, which will be gone, by the names that they were to get.
    """
    try:
        yield
    except DkmError as error:
        inside = "" if folder is None else f"{folder}{os.sep}"
        if inside and inside in str(error):
            there = str(path).removesuffix(path.name)
            raise type(error)(str(error).replace(inside, there)) from error
        raise
    except Exception as error:  # libraries that write files have kinds of their own
        told = refused_by_system(error)
        if told is None:
            raise
        raise UnwritableFileError(f"{path}: cannot be written: {told}") from error


def _publish(folder: Path, path: Path, *, force: bool) -> None:
    """Move the new ``path`` and its companions out of ``folder``."""
    companions = sorted(part.name for part in folder.iterdir() if part.name != path.name)
    names = [*companions, path.name]
    for name in names:
        check_writable(path.with_name(name), force=force)
    main = folder / path.name
    if os.path.lexists(path) and path.is_dir() != main.is_dir():
        raise DkmError(
            f"{path}: a file cannot replace a folder, nor a folder a file; remove it first"
        )
    if force and not companions and not main.is_dir():
        main.replace(path)  # one step
        return
    old, moved = folder / _OLD, list[str]()
    old.mkdir()
    try:
        # The main file goes first and comes last: it is never there with another's companions.
        for name in reversed(names):
            if os.path.lexists(path.with_name(name)):
                path.with_name(name).rename(old / name)
        for name in names:
            _move_to_free(folder / name, path.with_name(name))
            moved.append(name)
    except BaseException:
        for name in moved:
            remove(path.with_name(name))
        _move_back(old, path)
        raise


def _move_back(old: Path, path: Path) -> None:
    """Move what was replaced to where it was, and remove the folder once nothing is left in it."""
    for part in list(old.iterdir()):
        try:
            _move_to_free(part, path.with_name(part.name))
        except OSError as error:
            told = refused_by_system(error)
            raise UnwritableFileError(
                f"{path}: cannot be written; the old content is now in {part}: {told}"
            ) from error
    old.rmdir()


def _move_to_free(source: Path, path: Path) -> None:
    """Move to a name that is free, and to no other.

    A folder never replaces one that holds something. A file would replace another: it gets its
    second name by a link, which does not.
    """
    if source.is_dir() and not source.is_symlink():
        source.rename(path)
        return
    try:
        os.link(source, path, follow_symlinks=False)
        source.unlink()
    except FileExistsError:
        check_writable(path, force=False)
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        check_writable(path, force=False)
        source.rename(path)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let no other process of this kind move files into ``folder`` meanwhile.

    Two that publish several files under one name would mix them. Where the system has no such
    locks (Windows, some network file systems) there is none.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def check_writable(path: Path, *, force: bool) -> None:
    """Raise DkmError if ``path`` cannot be written, as far as that is known before it is tried.

    Raises:
        OutputExistsError: it exists and ``force`` is not set.
        UnwritableFileError: no file can be called so, or made there.
        DkmError: it has no name.
    """
    if path.name in ("", ".."):
        raise DkmError(f"{str(path)!r} is a folder; add a file name to it")
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        there = False
    except (OSError, ValueError) as error:  # ValueError: a null byte
        told = refused_by_system(error) or error
        raise UnwritableFileError(f"{path}: cannot be written: {told}") from error
    else:
        there = True
    if there and not force:
        raise OutputExistsError(f"{path}: already exists; use --force (force=True) to replace it")
    folder = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    if not folder.is_dir():
        raise UnwritableFileError(f"{path.parent}: cannot make this folder: {folder} is a file")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UnwritableFileError(f"{path}: cannot be written: {folder} is read-only")


@contextmanager
def set_aside(path: Path) -> Iterator[None]:
    """Move what is at ``path`` out of the way, and back if the block raises."""
    folder = path.with_name(_temporary_name(path.name))
    with _translate_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
        if os.path.lexists(path):
            path.rename(folder / path.name)
    try:
        yield
    except BaseException:
        remove(path)
        _move_back(folder, path)
        raise
    remove(folder)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
