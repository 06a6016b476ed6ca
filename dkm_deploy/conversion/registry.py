"""The register of targets and readers: who writes and who reads which file suffix.

A target lives in its own package and registers an object under the entry-point group
``dkm_deploy.targets``, so that a third party can add one; what only reads a kind of file
registers under ``dkm_deploy.readers``. Nothing here knows any of them by name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dkm_deploy._support.argument_checks import usage
from dkm_deploy._support.paths import existing_path, translate_read_errors
from dkm_deploy.conversion.target import Planner, Rewriter, Target, VersionedTarget
from dkm_deploy.errors import DkmError
from dkm_deploy.formats.reader import DEFAULT_FUNCTION, Adviser, FunctionReader, Reader

if TYPE_CHECKING:
    from dkm_deploy.formats.ledger import Ledger
    from dkm_deploy.palette import Palette

TARGETS = "dkm_deploy.targets"
READERS = "dkm_deploy.readers"


_R = TypeVar("_R", bound=Reader)


@cache
def targets() -> dict[str, Target]:
    """All registered targets by name."""
    found: list[Target] = [point.load() for point in entry_points(group=TARGETS)]
    return {target.name: target for target in sorted(found, key=lambda t: t.name)}


def target_named(name: str) -> Target:
    """The target called ``name``, such as "onnx" or "coreml", or "coreml:iOS17" with a version."""
    name, colon, version = name.partition(":")
    if name not in targets():
        raise DkmError(f"unknown target {name!r}; known targets are {', '.join(targets())}")
    target = targets()[name]
    if not colon:
        return target
    if not isinstance(target, VersionedTarget):
        raise DkmError(f"target {name} has no versions such as {version!r}; write {name!r}")
    return target.at(version)


def at_version(target: Target, options: Mapping[str, Any]) -> Target:
    """The target at the version that the options of ``convert`` name, if they name one."""
    if isinstance(target, VersionedTarget) and target.version_option in options:
        return target.at(options[target.version_option])
    return target


def target_for(path: Path) -> Target:
    """The target that writes files with the suffix of ``path``."""
    return _with_suffix(path, targets().values(), "written")


def rewriter_for(path: Path) -> Rewriter:
    """The target that palettizes files with the suffix of ``path``."""
    able = [target for target in targets().values() if isinstance(target, Rewriter)]
    _advise(path, able)
    return _with_suffix(path, able, "palettized")


def planner_for(path: Path) -> Planner:
    """The target that plans for files with the suffix of ``path``."""
    able = [target for target in targets().values() if isinstance(target, Planner)]
    _advise(path, able)
    return _with_suffix(path, able, "planned for")


def reader_for(path: Path) -> Reader:
    """What reads files with the suffix of ``path``: a target or a reader."""
    for reader in _readers():
        _advise(path, [reader])
        if path.suffix in reader.suffixes:
            return reader
    raise _unknown(path, _readers(), "read")


def function_reader(path: Path, function: str | None) -> Reader:
    """What reads a function of the file at ``path``; None is the default one.

    Raises:
        DkmError: a function is named, and such files have but one.
    """
    reader = reader_for(path)
    if isinstance(reader, FunctionReader):
        return reader.of_function(function or DEFAULT_FUNCTION)
    if function is not None:
        raise DkmError(f"{path}: {path.suffix} files have one function; leave function out")
    return reader


def _advise(path: Path, readers: Iterable[Reader]) -> None:
    """Raise DkmError for a file that one of them knows and cannot read."""
    for reader in readers:
        if isinstance(reader, Adviser) and path.suffix in reader.advice:
            raise DkmError(f"{path}: {reader.advice[path.suffix]}")


def _readers() -> Iterator[Reader]:
    """Targets first: what only reads is not imported if one of them does."""
    yield from targets().values()
    for point in entry_points(group=READERS):
        reader: Reader = point.load()
        yield reader


def _with_suffix(path: Path, candidates: Collection[_R], verb: str) -> _R:
    for candidate in candidates:
        if path.suffix in candidate.suffixes:
            return candidate
    raise _unknown(path, candidates, verb)


def _unknown(path: Path, candidates: Iterable[Reader], verb: str) -> DkmError:
    known = ", ".join(suffix for candidate in candidates for suffix in candidate.suffixes)
    return DkmError(f"{path}: files with suffix {path.suffix!r} cannot be {verb}; known: {known}")


@usage('dkm.read_palettes("net.onnx")')
def read_palettes(path: str | Path) -> dict[str, Palette]:
    """Decode the palettes of a converted file from its bytes, on any OS.

    Args:
        path: a file or package.

    Returns:
        Palettes by qualified parameter name; empty if every weight is dense.

    Raises:
        DkmError: the file is missing, damaged, or of an unknown kind.

    Example:
        >>> dkm.read_palettes("model.mlpackage")["weight"].decode().shape
        (4, 8)
    """
    path = existing_path(path)
    with translate_read_errors(path):
        return reader_for(path).read_palettes(path)


@usage('dkm.size_breakdown("net.onnx")')
def size_breakdown(path: str | Path) -> Ledger:
    """Count every byte of a converted file, by tensor and by kind.

    Args:
        path: a file or package.

    Returns:
        A ledger whose bytes add up to the size on disk.

    Raises:
        DkmError: the file is missing, damaged, or of an unknown kind.

    Example:
        >>> dkm.size_breakdown("model.onnx").by_kind()["indices"]
        8
    """
    path = existing_path(path)
    with translate_read_errors(path):
        return reader_for(path).ledger(path)
