"""Run a converted file. One module a runtime; each registers under ``dkm_deploy.runtimes``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from dkm_deploy.errors import DkmError

GROUP = "dkm_deploy.runtimes"

Arrays = Mapping[str, NDArray[Any]]
Shape = tuple[int | None, ...]


class NotTakenError(DkmError):
    """An input of the model that a file cannot be given, such as numbers for an image."""


class WrongLabelError(DkmError):
    """A classifier whose label is not that of its highest score."""


class Session(Protocol):
    """A loaded file, ready to run."""

    input_shapes: Mapping[str, Shape]
    """Shape of every input by name; None for a dimension that may change."""

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Outputs by name. Raises DkmError if an input is missing, unknown or of another shape."""
        ...


@runtime_checkable
class StatefulSession(Session, Protocol):
    """A session of a file that may keep something from one run to the next."""

    states: Collection[str]
    """Names of what it keeps; empty if it keeps nothing."""

    def make_state(self) -> Any:
        """What it keeps before the first run."""
        ...

    def run(self, inputs: Arrays, *, state: Any = None) -> dict[str, NDArray[Any]]:
        """As of a :class:`Session`; it goes on from ``state`` and changes it. None forgets."""
        ...


class InterfaceTranslator(Protocol):
    """How inputs and outputs of a model become those of a file, and back."""

    def to_file_inputs(self, arrays: Arrays) -> Arrays:
        """The file's inputs. Raises NotTakenError if there are none for these."""
        ...

    def to_model_outputs(self, outputs: Arrays) -> dict[str, NDArray[Any]]:
        """The model's outputs. Raises WrongLabelError if they contradict each other."""
        ...


@runtime_checkable
class TranslatingSession(Session, Protocol):
    """A session of a file that may take and give other things than the model does."""

    interface: InterfaceTranslator


@runtime_checkable
class BatchedSession(Protocol):
    """A session or probe of a file that may allow some numbers of samples at a time, not others."""

    batches: tuple[tuple[int, int | None], ...]
    """Smallest and largest number of samples at a time, None where there is no limit; any of these
    ranges will do. Empty if no input has a dimension."""


@runtime_checkable
class TellsPrecision(Session, Protocol):
    """A session that knows in which numbers the file computes."""

    @property
    def computes_half(self) -> bool:
        """Whether results are float16, all or some."""
        ...


class Runtime(Protocol):
    """Something that runs files of some suffixes."""

    name: str
    """What to call it in a report, with its version."""
    suffixes: tuple[str, ...]
    native: bool
    """Whether the file will run on this very code in an app; reference evaluators are not."""

    def unavailable(self) -> str | None:
        """Why it cannot run here, or None if it can."""
        ...

    def load(self, path: Path) -> Session:
        """Open a file. Raises DkmError with the reason if it cannot."""
        ...


@dataclass(frozen=True)
class Tap:
    """Where a file computes a layer.

    Attributes:
        weight: the weight that is read, by qualified parameter name.
        taken: name of the value that goes in.
        made: name of the value that comes out.
    """

    weight: str
    input: str
    output: str


class Dump(Session, Protocol):
    """A session whose outputs are the values at some taps, and no others of the file."""

    def overflow_text(self) -> str | None:
        """What the last run first lost to an overflow, in words; None if nothing, or unknown."""
        ...


class Probe(Protocol):
    """A file that was opened to look inside."""

    input_shapes: Mapping[str, Shape]
    """As of a :class:`Session`."""
    taps: tuple[Tap, ...]
    """Where it computes layers, in the order in which it does."""

    def at(self, taps: Collection[Tap]) -> Dump:
        """A session that keeps the values at these taps, so that few take little memory."""
        ...


@runtime_checkable
class Prober(Runtime, Protocol):
    """A runtime that shows the values inside a file."""

    def probe(self, path: Path, weights: Collection[str]) -> Probe:
        """Open a file to see what goes into and comes out of the layers with these weights."""
        ...


@runtime_checkable
class RunsInFloat32(Runtime, Protocol):
    """A runtime that can leave out the float16 rounding that a file asks for."""

    def load_in_float32(self, path: Path) -> Session:
        """Open a file to compute in float32 throughout, with weights as the file stores them."""
        ...


@runtime_checkable
class FunctionRuntime(Runtime, Protocol):
    """A runtime of files that may have several functions."""

    def of_function(self, function: str) -> Runtime:
        """The same runtime, which runs this function of a file in place of the default one."""
        ...


@runtime_checkable
class TimedRuntime(Runtime, Protocol):
    """A runtime whose files can be timed in a process that imports nothing else."""

    bare: Path
    """A Python file with ``load(path, threads)``: it opens a file and gives a function that runs it
    on arrays by input name. Its imports, which are not counted, are those of the runtime alone."""


@cache
def runtimes() -> tuple[Runtime, ...]:
    """All registered runtimes, native ones first."""
    found: list[Runtime] = [point.load() for point in entry_points(group=GROUP)]
    return tuple(sorted(found, key=lambda r: (not r.native, r.name)))


def runtime_for(path: Path, function: str | None = None) -> Runtime:
    """The runtime to run ``path`` with: the first, native before reference, that works here.

    It runs the default function of the file, or the one that is named.

    Raises:
        DkmError: none runs such a file, or none of those that do is available here (with reasons).
    """
    fitting = [runtime for runtime in runtimes() if path.suffix in runtime.suffixes]
    for runtime in fitting:
        if runtime.unavailable() is None:
            return _of_function(runtime, function)
    reasons = "; ".join(f"{r.name}: {r.unavailable()}" for r in fitting)
    raise DkmError(f"{path}: no runtime here runs {path.suffix!r} files. {reasons}".rstrip(". "))


def timed_runtime(path: Path) -> TimedRuntime:
    """The runtime of ``path``, if its cost can be measured. Raises DkmError if it cannot."""
    runtime = runtime_for(path)
    if isinstance(runtime, TimedRuntime):
        return runtime
    raise DkmError(
        f"{path}: {runtime.name} does not measure costs on a device; measure them there, "
        "for example with Xcode's performance report"
    )


def float32_runtime(path: Path, function: str | None = None) -> RunsInFloat32 | None:
    """The runtime that runs a file of this kind in float32 throughout; None if none does."""
    for runtime in runtimes():
        fits = isinstance(runtime, RunsInFloat32) and path.suffix in runtime.suffixes
        if fits and runtime.unavailable() is None:
            return _of_function(runtime, function)  # type: ignore[return-value]  # seen by isinstance above
    return None


def prober_for(path: Path, function: str | None = None) -> Prober:
    """The runtime that shows the values inside ``path``. Raises DkmError if none does."""
    for runtime in runtimes():
        fits = isinstance(runtime, Prober) and path.suffix in runtime.suffixes
        if fits and runtime.unavailable() is None:
            return _of_function(runtime, function)  # type: ignore[return-value]  # seen by isinstance above
    raise DkmError(f"no runtime here shows the values inside {path.suffix!r} files")


def _of_function(runtime: Runtime, function: str | None) -> Runtime:
    """The runtime for a function of a file. Raises DkmError if its files have but one."""
    if function is None:
        return runtime
    if isinstance(runtime, FunctionRuntime):
        return runtime.of_function(function)
    raise DkmError(f"{runtime.name}: its files have one function; leave function out")


def check_inputs(given: Arrays, expected: Mapping[str, Shape], what: str = "input") -> None:
    """Raise DkmError if the names or shapes of ``given`` are not the ``expected`` ones."""
    if set(given) != set(expected):
        names, wanted = (", ".join(sorted(table)) or "none" for table in (given, expected))
        raise DkmError(f"{what}s are {names}; the file takes {wanted}")
    for name, shape in expected.items():
        actual = given[name].shape
        if len(actual) != len(shape) or any(
            want not in (None, have) for want, have in zip(shape, actual, strict=True)
        ):
            raise DkmError(f"{what} {name!r} has shape {actual}; the file takes {shape}")
