"""ONNX Runtime on the CPU."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from dkm_deploy.errors import DkmError, MissingFileError
from dkm_deploy.runtimes import Arrays, Shape, check_inputs

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from onnxruntime import InferenceSession, SessionOptions

_FATAL = 4


class OnnxSession:
    """A file loaded by ONNX Runtime."""

    def __init__(self, path: Path, session: InferenceSession) -> None:
        self._path = path
        self._session = session
        self._outputs = [output.name for output in session.get_outputs()]
        self.input_shapes: dict[str, Shape] = {
            source.name: tuple(d if isinstance(d, int) else None for d in source.shape)
            for source in session.get_inputs()
        }

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Outputs by name.

        Raises:
            DkmError: an input is missing, unknown, of another shape or type, or the run fails.
        """
        check_inputs(inputs, self.input_shapes)
        try:
            results = self._session.run(self._outputs, dict(inputs))
        # ONNX Runtime's errors have no common base class.
        except Exception as error:
            raise DkmError(f"{self._path}: cannot run: {_reason(error)}") from error
        return dict(zip(self._outputs, results, strict=True))


class OnnxRuntime:
    """Runs ``.onnx`` and ``.ort`` files on the CPU; imports onnxruntime only when it does."""

    suffixes: tuple[str, ...] = (".onnx", ".ort")
    native = True

    def __init__(self) -> None:
        try:
            self.name = f"ONNX Runtime {version('onnxruntime')}"
        except PackageNotFoundError:  # absent, or a build under another name, such as for GPUs
            self.name = "ONNX Runtime"

    def unavailable(self) -> str | None:
        """None if onnxruntime is installed."""
        return None if find_spec("onnxruntime") else "the package onnxruntime is not installed"

    def load(self, path: Path) -> OnnxSession:
        """Open a file with all optimisations on, as an app does by default.

        Of a ``.ort`` file ONNX Runtime folds no constants even so.

        Raises:
            DkmError: the file is missing, or ONNX Runtime refuses it.
        """
        import onnxruntime

        if not path.is_file():
            raise MissingFileError(f"{path}: no such file")
        try:
            session = onnxruntime.InferenceSession(
                str(path), quiet_options(), providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise DkmError(f"{path}: ONNX Runtime cannot load it: {_reason(error)}") from error
        return OnnxSession(path, session)


def quiet_options() -> SessionOptions:
    """Session options under which ONNX Runtime prints nothing; its errors are raised anyway."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    return options


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())


runtime = OnnxRuntime()
