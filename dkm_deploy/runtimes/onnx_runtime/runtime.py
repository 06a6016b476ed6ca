"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dkm_deploy.errors import DkmError, MissingFileError
from dkm_deploy.runtimes import Arrays, Shape, Tap, check_inputs
from dkm_deploy.runtimes.onnx_runtime.taps import find_taps
from dkm_deploy.runtimes.onnx_runtime.widen_bfloat16 import widen_bfloat16

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray
    from onnx import ModelProto
    from onnxruntime import InferenceSession, SessionOptions

_FATAL = 4


class OnnxSession:
    """A file loaded by ONNX Runtime."""

    def __init__(self, path: Path, session: InferenceSession) -> None:
        self._path = path
        self._session = session
        self._outputs = [output.name for output in session.get_outputs()]
        self.input_shapes: Mapping[str, Shape] = {
            source.name: tuple(d if isinstance(d, int) else None for d in source.shape)
            for source in session.get_inputs()
        }

    @property
    def computes_half(self) -> bool:
        """Whether the file takes or gives float16: weights alone are cast before they are used."""
        values = (*self._session.get_inputs(), *self._session.get_outputs())
        return any(value.type == "tensor(float16)" for value in values)

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
    bare = Path(__file__).with_name("bare.py")

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

        Of a ``.ort`` file ONNX Runtime folds no constants even so. An ``.onnx`` file of bfloat16
        for which it lacks kernels is computed in float32, with inputs and outputs of float32.

        Raises:
            DkmError: the file is missing, or ONNX Runtime refuses it.
        """
        if not path.is_file():
            raise MissingFileError(f"{path}: no such file")
        try:
            session = open_session(str(path))
        except Exception as error:
            wider = _open_widened(path)
            if wider is None:
                raise DkmError(f"{path}: ONNX Runtime cannot load it: {_reason(error)}") from error
            session = wider
        return OnnxSession(path, session)

    def probe(self, path: Path, weights: Collection[str]) -> OnnxProbe:
        """Open a ``.onnx`` file to look inside; it is read into memory.

        Raises:
            DkmError: it is damaged, of another kind, or ONNX Runtime refuses it.
        """
        import onnx

        if path.suffix != ".onnx":
            raise DkmError(
                f"no runtime here shows the values inside {path.suffix!r} files; "
                "validate the .onnx file of the same model"
            )
        try:
            model = onnx.load(path)
            taps = find_taps(model.graph, weights)
        except Exception as error:  # of protobuf, of onnx and of ONNX Runtime: no common base class
            raise DkmError(f"{path}: cannot read the values inside: {_reason(error)}") from error
        return OnnxProbe(path, model, taps)


class OnnxProbe:
    """Implements :class:`dkm_deploy.runtimes.Probe` with a model in memory."""

    def __init__(self, path: Path, model: ModelProto, taps: tuple[Tap, ...]) -> None:
        self._path = path
        self._model = model
        self.taps = taps
        self.input_shapes = self.at(()).input_shapes

    def at(self, taps: Collection[Tap]) -> OnnxDump:
        """A session of the model with the values at ``taps`` as its outputs.

        Raises:
            DkmError: ONNX Runtime refuses it, or it is too large with its data for one buffer.
        """
        names = list(dict.fromkeys(name for tap in taps for name in (tap.input, tap.output)))
        try:
            session = open_session(_with_outputs(self._model, names))
        except Exception as error:  # see OnnxRuntime.probe
            raise DkmError(
                f"{self._path}: cannot read the values inside: {_reason(error)}"
            ) from error
        return OnnxDump(self._path, session, names)


class OnnxDump(OnnxSession):
    """Implements :class:`dkm_deploy.runtimes.Dump`: the values called ``names``."""

    def __init__(self, path: Path, session: InferenceSession, names: Sequence[str]) -> None:
        super().__init__(path, session)
        self._names = names

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """The values at the taps by name. Raises as :meth:`OnnxSession.run`."""
        values = {**inputs, **super().run(inputs)}  # a layer may take an input itself
        return {name: values[name] for name in self._names}

    def overflow_text(self) -> str | None:
        """None: ONNX Runtime does not tell."""
        return None


def _open_widened(path: Path) -> InferenceSession | None:
    """A session of a file of bfloat16 in float32; None for all others."""
    import onnx

    if path.suffix != ".onnx":
        return None
    try:
        model = onnx.load(path)
        return open_session(model.SerializeToString()) if widen_bfloat16(model) else None
    except Exception:  # damaged, or wrong for another reason, which the caller has
        return None


def _with_outputs(model: ModelProto, names: Sequence[str]) -> bytes:
    """A model with values as outputs too; it is changed back, for a copy would take its size."""
    from onnx import helper

    own = len(model.graph.output)
    there = {value.name for value in (*model.graph.output, *model.graph.input)}
    wanted = [name for name in names if name not in there]
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in wanted)
    data: bytes = model.SerializeToString()
    del model.graph.output[own:]
    return data


def open_session(source: str | bytes) -> InferenceSession:
    """A session on the CPU. Without a fallback, which would try the CPU again and print that."""
    import onnxruntime

    return onnxruntime.InferenceSession(
        source, quiet_options(), providers=["CPUExecutionProvider"], enable_fallback=0
    )


def quiet_options() -> SessionOptions:
    """Session options under which ONNX Runtime prints nothing; its errors are raised anyway."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    return options


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())


runtime = OnnxRuntime()
