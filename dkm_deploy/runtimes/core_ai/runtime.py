"""Core AI: Apple's own runtime, which runs ``.aimodel`` assets on Linux and on macOS."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from dkm_deploy.errors import DkmError, reason_of
from dkm_deploy.formats.aimodel.asset import open_asset
from dkm_deploy.formats.aimodel.mlir_program import open_program
from dkm_deploy.runtimes import Arrays, Shape, Tap, check_inputs
from dkm_deploy.runtimes.core_ai.packages import missing_package, quiet_imports
from dkm_deploy.runtimes.core_ai.taps import find_taps

if TYPE_CHECKING:
    from collections.abc import Collection, Coroutine

    from numpy.typing import NDArray

_FUNCTION = "main"


class CoreAISession:
    """An asset compiled and loaded by Core AI."""

    def __init__(self, path: Path, function: Any) -> None:
        self._path = path
        self._function = function
        kinds = {name: function.desc.input_descriptor(name) for name in function.desc.input_names}
        self._dtypes = {name: np.dtype(kind.dtype) for name, kind in kinds.items()}
        self.input_shapes: dict[str, Shape] = {
            name: tuple(None if length in (None, -1) else length for length in kind.shape)
            for name, kind in kinds.items()
        }

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Outputs by name.

        Core AI has no 64-bit types: coreai-torch writes int64 as int32.

        Raises:
            DkmError: an input is missing, unknown, of another shape, holds numbers that the file's
                type does not, or the run fails.
        """
        check_inputs(inputs, self.input_shapes)
        given = {name: self._cast(name, array) for name, array in inputs.items()}
        try:
            with quiet_imports():
                outputs: dict[str, NDArray[Any]] = _wait(_call(self._function, given))
        except Exception as error:  # Core AI's errors have no common base class
            raise DkmError(f"{self._path}: cannot run: {reason_of(error)}") from error
        return outputs

    def _cast(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        """An input in the file's type."""
        dtype = self._dtypes[name]
        cast = np.asarray(array, dtype, order="C")  # ascontiguousarray gives a scalar a dimension
        if dtype.kind in "iu" and not np.array_equal(cast, array):
            raise DkmError(f"input {name!r} has values that {dtype} cannot hold")
        return cast


class CoreAIProbe:
    """Implements :class:`dkm_deploy.runtimes.Probe` with copies of an asset."""

    def __init__(self, path: Path, weights: Collection[str], taps: tuple[Tap, ...]) -> None:
        self._path = path
        self._weights = weights
        self.taps = taps
        self.input_shapes = self.at(()).input_shapes

    def at(self, taps: Collection[Tap]) -> CoreAIDump:
        """A copy of the asset that gives the values at ``taps`` too, loaded.

        Raises:
            DkmError: Core AI refuses it.
        """
        try:
            with quiet_imports(), TemporaryDirectory() as folder:
                copy = Path(folder) / self._path.name
                names = _write_with(taps, self._path, copy, self._weights)
                return CoreAIDump(self._path, _wait(_load(copy)), names)
        except Exception as error:  # see CoreAISession.run
            raise DkmError(
                f"{self._path}: cannot read the values inside: {reason_of(error)}"
            ) from error


class CoreAIDump(CoreAISession):
    """Implements :class:`dkm_deploy.runtimes.Dump`: the values called ``names``."""

    def __init__(self, path: Path, function: Any, names: Collection[str]) -> None:
        super().__init__(path, function)
        self._names = names

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """The values at the taps by name. Raises as :meth:`CoreAISession.run`."""
        values = super().run(inputs)
        return {name: values[name] for name in self._names}

    def overflow_text(self) -> str | None:
        """None: Core AI does not tell."""
        return None


class CoreAIRuntime:
    """Implements :class:`dkm_deploy.runtimes.Runtime`; imports Apple's packages when it loads."""

    suffixes: tuple[str, ...] = (".aimodel",)
    native = True

    def __init__(self) -> None:
        try:
            self.name = f"Core AI {version('coreai-core')}"
        except PackageNotFoundError:
            self.name = "Core AI"

    def unavailable(self) -> str | None:
        """Which package is missing, and how to install it, or None."""
        return missing_package("coreai")

    def load(self, path: Path) -> CoreAISession:
        """Compile and load an asset.

        Raises:
            DkmError: the asset is damaged, the package is missing, or Core AI refuses the asset.
        """
        self._check(path)
        try:
            with quiet_imports():
                return CoreAISession(path, _wait(_load(path)))
        except Exception as error:  # see CoreAISession.run
            raise DkmError(f"{path}: Core AI cannot load it: {reason_of(error)}") from error

    def probe(self, path: Path, weights: Collection[str]) -> CoreAIProbe:
        """Open an asset to look at the values around its palettized layers.

        Raises:
            DkmError: as :meth:`load`.
        """
        self._check(path)
        try:
            with quiet_imports():
                _, graph = _open_function(path)
                taps = tuple(one.tap for one in find_taps(graph, weights))
        except Exception as error:  # see CoreAISession.run
            raise DkmError(f"{path}: cannot read the values inside: {reason_of(error)}") from error
        return CoreAIProbe(path, weights, taps)

    def _check(self, path: Path) -> None:
        """Raise DkmError if the package is missing or the asset is damaged.

        Apple's parser ends the process where the bytes are not what they should be.
        """
        reason = self.unavailable()
        if reason:
            raise DkmError(f"{path}: {reason}")
        open_program(open_asset(path))


def _wait(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end, in a thread: the caller, a notebook say, may have a loop."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def _write_with(
    taps: Collection[Tap], path: Path, copy: Path, weights: Collection[str]
) -> list[str]:
    """Write the asset at ``path`` to ``copy`` with the values at ``taps`` as outputs: their names.

    A program that was changed before is not changed back, so it is read anew.
    """
    from coreai._compiler.ir import Location

    program, graph = _open_function(path)
    found = [one for one in find_taps(graph, weights) if one.tap in taps]
    added = {name: value for one in found for name, value in one.values.items()}
    with graph.operation.context, Location.unknown():
        graph.outputs_spec = [*graph.outputs_spec, *added.items()]
    program.save_asset(copy)
    return list(added)


def _open_function(path: Path) -> tuple[Any, Any]:
    """The program of an asset, and its function."""
    from coreai.authoring.asset import AIModelAsset

    program = AIModelAsset.load(path).program
    return program, program._get_graph(_FUNCTION)


async def _load(path: Path) -> Any:
    """The function of an asset."""
    from coreai.authoring.asset import AIModelAsset

    async with AIModelAsset.load(path).executable() as model:
        return model.load_function(_FUNCTION)


async def _call(function: Any, inputs: Arrays) -> dict[str, NDArray[Any]]:
    """Outputs of a function, copied from its memory."""
    from coreai.runtime import NDArray as CoreAIArray

    given = {name: CoreAIArray(array) for name, array in inputs.items()}
    return {name: array.numpy().copy() for name, array in (await function(given)).items()}


runtime = CoreAIRuntime()
