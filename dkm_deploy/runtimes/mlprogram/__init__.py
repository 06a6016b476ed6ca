"""The reference evaluator: reads and runs Core ML packages (ML programs) on any OS.

It shows what a file computes, by the definitions of its operations. It is not Core ML: the order
of additions, and with it the last bits, differ from a device's.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dkm_deploy._version import __version__

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from dkm_deploy.runtimes import Arrays, Tap
    from dkm_deploy.runtimes.mlprogram.evaluator import MLProgramEvaluator


class ReferenceRuntime:
    """Implements :class:`dkm_deploy.runtimes.Runtime`.

    Args:
        function: of a package, that is run; None is the default one.
    """

    name = f"reference evaluator (dkm-deploy {__version__})"
    suffixes = (".mlpackage",)
    native = False

    def __init__(self, function: str | None = None) -> None:
        self._function = function

    def of_function(self, function: str) -> ReferenceRuntime:
        """The same runtime for another function."""
        return ReferenceRuntime(function)

    def unavailable(self) -> str | None:
        """None: it runs wherever this package does."""
        return None

    def load(self, path: Path) -> MLProgramEvaluator:
        """Open a package. Raises DkmError if it is damaged or not supported."""
        # Imported here so that the register of runtimes can be listed quickly.
        from dkm_deploy.runtimes.mlprogram.evaluator import MLProgramEvaluator

        return MLProgramEvaluator(path, function=self._function)

    def load_in_float32(self, path: Path) -> MLProgramEvaluator:
        """Open a package to compute in float32 throughout. Raises as :meth:`load`."""
        from dkm_deploy.runtimes.mlprogram.evaluator import MLProgramEvaluator

        return MLProgramEvaluator(path, numerics="fp32", function=self._function)

    def probe(self, path: Path, weights: Collection[str]) -> EvaluatorProbe:
        """Open a package to look inside. Raises as :meth:`load`."""
        return EvaluatorProbe(self.load(path), weights)


class EvaluatorProbe:
    """Implements :class:`dkm_deploy.runtimes.Probe` with an evaluator."""

    def __init__(self, session: MLProgramEvaluator, weights: Collection[str]) -> None:
        self._session = session
        self.input_shapes, self.batches = session.input_shapes, session.batches
        self.taps = session.taps(weights)

    def at(self, taps: Collection[Tap]) -> EvaluatorDump:
        """The same evaluator, keeping the values at ``taps``."""
        return EvaluatorDump(self._session, taps)


class EvaluatorDump:
    """Implements :class:`dkm_deploy.runtimes.Dump` with an evaluator."""

    def __init__(self, session: MLProgramEvaluator, taps: Collection[Tap]) -> None:
        self._session = session
        self._names = {name for tap in taps for name in (tap.input, tap.output)}
        self.input_shapes = session.input_shapes
        self.interface = session.interface

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """The values at the taps by name. Raises as the evaluator does."""
        values = self._session.run(inputs, keep=self._names)
        return {name: values[name] for name in self._names}

    def overflow_text(self) -> str | None:
        """The first overflow of the last run, if it was none of a constant, such as a mask."""
        made = (str(each) for each in self._session.overflows if each.type != "const")
        return next(made, None)


runtime = ReferenceRuntime()
