"""The register of targets and readers: who writes and who reads which file suffix.

A target lives in its own package and registers an object under the entry-point group
``dkm_deploy.targets``, so that a third party can add one; what only reads a kind of file
registers under ``dkm_deploy.readers``. Nothing here knows any of them by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from dkm_deploy.errors import DkmError
from dkm_deploy.paths import existing as existing
from dkm_deploy.paths import reading

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from dkm_deploy.export import Exported, Inputs
    from dkm_deploy.ledger import Ledger
    from dkm_deploy.metric import Metric
    from dkm_deploy.palette import Palette
    from dkm_deploy.planning.subject import Subject
    from dkm_deploy.recipe import PaletteSpec, Recipe
    from dkm_deploy.rewrite import Rewrite

TARGETS = "dkm_deploy.targets"
READERS = "dkm_deploy.readers"


class Reader(Protocol):
    """Something that tells what a file holds."""

    suffixes: tuple[str, ...]

    def read_palettes(self, path: Path) -> dict[str, Palette]:
        """The palettes decoded from the file's bytes, by qualified parameter name."""
        ...

    def ledger(self, path: Path) -> Ledger:
        """Every byte of the file."""
        ...


class Target(Reader, Protocol):
    """A kind of file to convert to. ``options`` are its own keyword arguments of ``convert``."""

    name: str

    def refuse(self, spec: PaletteSpec, shape: tuple[int, ...], gates: int = 1) -> str | None:
        """Why a weight of ``shape`` cannot be held with ``spec``, or None if it can.

        ``gates`` are equal blocks along dimension 0 whose order a target may have another way:
        4 of an LSTM's weight, 3 of a GRU's, 1 of any other.
        """
        ...

    def write(
        self, exported: Exported, path: Path, *args: Any, **options: Any
    ) -> Sequence[str] | None:
        """Write the program to ``path``, alone in a new folder, and moved from there afterwards.

        Other files that belong to it are written beside it, under names that start with its own.

        Returns:
            What the user should know of it, a line each; None is nothing.
        """
        ...


@runtime_checkable
class Versioned(Target, Protocol):
    """A target that holds more or less with the version of the system that will run the file."""

    version_option: str
    """The option of ``convert`` that names the version, such as "minimum_deployment_target"."""

    def at(self, version: str) -> Target:
        """The same target, held to what ``version`` can do. Raises DkmError if it is unknown."""
        ...


@runtime_checkable
class StatefulTarget(Target, Protocol):
    """A target whose files keep state; one that is none is given no model that has any.

    What such a file takes and gives beside the model's own inputs and outputs is its own affair.
    """

    def refuse_state(self, start: Tensor) -> str | None:
        """Why a buffer that forward writes cannot be kept from run to run, or None if it can.

        ``start`` is what it holds before the first run.
        """
        ...


@runtime_checkable
class Approximating(Target, Protocol):
    """A target that can write files which, as the user asked, compute something else."""

    def approximates(self, options: Mapping[str, Any]) -> str | None:
        """Why a file written with these options of ``convert`` differs by more than rounding."""
        ...


@runtime_checkable
class LayerTarget(Target, Protocol):
    """A target whose format lacks an operation for some layers, whatever their palettes."""

    def refuse_layer(self, layer: nn.Module) -> str | None:
        """Why a layer cannot be converted, or None if it can or nothing is known."""
        ...


@runtime_checkable
class Adviser(Reader, Protocol):
    """A reader that knows files of its kind that it cannot read."""

    advice: Mapping[str, str]
    """By suffix, what such a file is and what to give in its place."""


@runtime_checkable
class Rewriter(Target, Protocol):
    """A target that can also palettize a file of its own kind, without the model it came from."""

    def palettize(self, path: Path, out: Path, recipe: Recipe) -> Rewrite:
        """Write the file at ``path`` with palettes to ``out``, which does not exist yet."""
        ...

    def write_twin(self, path: Path, palettes: Mapping[str, Palette], out: Path) -> None:
        """Write the dense file at ``path`` to ``out``, its weights those that palettes decode to.

        Raises:
            DkmError: a palette is of no weight in the file.
        """
        ...


@runtime_checkable
class Planner(Rewriter, Protocol):
    """A target that can also find the palettes for a file of its own kind to fit a byte budget."""

    def subject(
        self,
        path: Path,
        inputs: Inputs,
        labels: Tensor | NDArray[Any] | None,
        metric: Metric | None,
    ) -> Subject:
        """The file at ``path``, with what it is measured on; see :func:`dkm_deploy.plan_file`."""
        ...


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
        raise DkmError(f"no target is called {name!r}; there are {', '.join(targets())}")
    target = targets()[name]
    if not colon:
        return target
    if not isinstance(target, Versioned):
        raise DkmError(f"target {name} has no versions such as {version!r}; write {name!r}")
    return target.at(version)


def held_to(target: Target, options: Mapping[str, Any]) -> Target:
    """The target at the version that the options of ``convert`` name, if they name one."""
    if isinstance(target, Versioned) and target.version_option in options:
        return target.at(options[target.version_option])
    return target


def target_for(path: Path) -> Target:
    """The target that writes files with the suffix of ``path``."""
    return _with_suffix(path, targets().values(), "written")


def rewriter_for(path: Path) -> Rewriter:
    """The target that palettizes files with the suffix of ``path``."""
    able = [target for target in targets().values() if isinstance(target, Rewriter)]
    return _with_suffix(path, able, "palettized")


def planner_for(path: Path) -> Planner:
    """The target that plans for files with the suffix of ``path``."""
    able = [target for target in targets().values() if isinstance(target, Planner)]
    return _with_suffix(path, able, "planned for")


def reader_for(path: Path) -> Reader:
    """What reads files with the suffix of ``path``: a target or a reader."""
    loaded = (point.load() for point in entry_points(group=READERS))
    readers: list[Reader] = [*targets().values(), *loaded]
    for reader in readers:
        if isinstance(reader, Adviser) and path.suffix in reader.advice:
            raise DkmError(f"{path}: {reader.advice[path.suffix]}")
    return _with_suffix(path, readers, "read")


def _with_suffix(path: Path, candidates: Iterable[_R], verb: str) -> _R:
    found = list(candidates)
    for candidate in found:
        if path.suffix in candidate.suffixes:
            return candidate
    known = ", ".join(suffix for candidate in found for suffix in candidate.suffixes)
    raise DkmError(f"{path}: files with suffix {path.suffix!r} cannot be {verb}; known: {known}")


def read_palettes(path: str | Path) -> dict[str, Palette]:
    """The palettes of a converted file, decoded from its bytes on any OS.

    Returns:
        Palettes by qualified parameter name; empty where every weight is dense.

    Raises:
        DkmError: the file is missing, damaged, or of an unknown kind.
    """
    path = existing(path)
    with reading(path):
        return reader_for(path).read_palettes(path)


def ledger(path: str | Path) -> Ledger:
    """Every byte of a converted file accounted for, by tensor and by kind.

    Raises:
        DkmError: the file is missing, damaged, or of an unknown kind.
    """
    path = existing(path)
    with reading(path):
        return reader_for(path).ledger(path)
