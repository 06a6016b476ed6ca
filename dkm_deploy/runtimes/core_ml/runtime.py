"""Run Core ML packages with Core ML itself, on macOS.

This module has never run on a Mac: its calls follow the documentation of coremltools, and its
tests put a stand-in in the place of ``coremltools.models.MLModel``.
"""

from __future__ import annotations

import importlib
import platform
import shutil
import sys
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dkm_deploy._support.silence import quiet
from dkm_deploy.errors import DkmError, reason_of
from dkm_deploy.formats.mlpackage.ml_program import chosen, functions
from dkm_deploy.formats.mlpackage.package import open_package
from dkm_deploy.formats.mlpackage.proto import coremltools
from dkm_deploy.runtimes import Arrays, Shape
from dkm_deploy.runtimes.mlprogram.inputs import batch_options, described_inputs, taken_inputs
from dkm_deploy.runtimes.mlprogram.interface import package_translator

COMPUTE_UNITS = ("ALL", "CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE")


class CoreMLSession:
    """A function of a package, compiled and loaded by Core ML.

    Attributes:
        input_shapes: shape of every input by name; None for a dimension that may change.
        batches: see :class:`dkm_deploy.runtimes.BatchedSession`.
        states: names of what :meth:`make_state` makes.
        interface: how the inputs and outputs of the original model become those of the file.
    """

    def __init__(self, path: Path, compute_units: str, function: str | None = None) -> None:
        """Load ``path``.

        Args:
            path: a ``.mlpackage``. coremltools writes to what it loads, so it gets a copy.
            compute_units: one of ``COMPUTE_UNITS``.
            function: which function; None is the package's default.

        Raises:
            DkmError: the package is damaged, has no such function, or Core ML refuses it.
        """
        self._path = path
        package = open_package(path)
        self._function = chosen(functions(package), function)
        self.states = tuple(self._function.states)
        self._inputs = described_inputs(package, self._function)
        self.input_shapes: Mapping[str, Shape] = {n: i.shape for n, i in self._inputs.items()}
        self.batches = batch_options(self._inputs)
        self.interface = package_translator(package, self._function)
        self._spaces = _color_spaces(package.model.description)
        folder = tempfile.mkdtemp()
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        copy = shutil.copytree(path, Path(folder) / path.name)
        ct = coremltools()
        named = {} if function is None else {"function_name": function}
        try:
            with quiet():
                units = ct.ComputeUnit[compute_units]
                self._model = ct.models.MLModel(str(copy), compute_units=units, **named)
        except Exception as error:  # coremltools passes on what Core ML says in many kinds
            raise DkmError(f"{path}: Core ML cannot load it: {reason_of(error)}") from error

    @property
    def computes_half(self) -> bool:
        """Whether the program declares some result as fp16."""
        kinds = (kind for op in self._function.body.operations for _, kind in op.outputs)
        return any(kind is not None and kind.dtype.name == "fp16" for kind in kinds)

    def make_state(self) -> Any:
        """Zeros for every state of the function, to be passed to :meth:`run`; Core ML's own."""
        return self._model.make_state()

    def run(self, inputs: Arrays, state: Any = None) -> dict[str, NDArray[Any]]:
        """Outputs by name; class probabilities in the order of the labels.

        Args:
            inputs: arrays by name; an image as its pixels, (1, channels, height, width).
            state: from :meth:`make_state`, or of the run before. None starts from zeros and
                forgets.

        Raises:
            DkmError: an input does not fit, Pillow is missing for an image, or Core ML fails.
        """
        taken = taken_inputs(self._inputs, inputs)
        given = {name: self._feature(name, array) for name, array in taken.items()}
        try:
            if self._function.states:
                outputs = self._model.predict(given, state or self._model.make_state())
            else:
                outputs = self._model.predict(given)
        except Exception as error:  # see __init__
            raise DkmError(f"{self._path}: Core ML failed: {reason_of(error)}") from error
        return {name: self._array(value) for name, value in outputs.items()}

    def _feature(self, name: str, array: NDArray[Any]) -> Any:
        if name in self._spaces:
            return _image(array, blue_first=self._spaces[name] == "BGR")
        return np.asarray(array, self._inputs[name].kind.dtype.numpy_name)

    def _array(self, value: Any) -> NDArray[Any]:
        if isinstance(value, Mapping):
            return np.array([value[label] for label in self.interface.labels])
        return np.asarray(value)


class CoreMLRuntime:
    """Implements :class:`dkm_deploy.runtimes.Runtime`.

    Args:
        compute_units: one of ``COMPUTE_UNITS``.
        function: of a package, that is run; None is the default one.

    Raises:
        DkmError: there are no such compute units.
    """

    suffixes = (".mlpackage",)
    native = True

    def __init__(self, compute_units: str = "ALL", function: str | None = None) -> None:
        if compute_units not in COMPUTE_UNITS:
            raise DkmError(
                f"compute_units is {compute_units!r}; it must be one of {', '.join(COMPUTE_UNITS)}"
            )
        self._compute_units, self._function = compute_units, function
        self.name = f"Core ML ({compute_units})"

    def unavailable(self) -> str | None:
        """Why Core ML cannot run here, or None."""
        if sys.platform == "darwin":
            return None
        return f"Core ML runs on macOS only; this is {platform.system()}"

    def of_function(self, function: str) -> CoreMLRuntime:
        """The same runtime for another function."""
        return CoreMLRuntime(self._compute_units, function)

    def load(self, path: Path) -> CoreMLSession:
        """Load a package. Raises DkmError off macOS, or if Core ML refuses the package."""
        reason = self.unavailable()
        if reason:
            raise DkmError(f"{path}: {reason}")
        return CoreMLSession(path, self._compute_units, self._function)


def _color_spaces(description: Any) -> dict[str, str]:
    """The colors of each input that is an image: RGB, BGR or GRAYSCALE."""
    images = {
        feature.name: feature.type.imageType
        for feature in description.input
        if feature.type.WhichOneof("Type") == "imageType"
    }
    return {name: kind.ColorSpace.Name(kind.colorSpace) for name, kind in images.items()}


def _image(array: NDArray[Any], *, blue_first: bool) -> Any:
    """Pixels (1, channels, height, width) as Core ML takes them: a picture of Pillow's."""
    try:
        pillow = importlib.import_module("PIL.Image")
    except ImportError as error:
        raise DkmError("an image for Core ML needs Pillow: pip install pillow") from error
    planes = array[0].astype(np.uint8)
    planes = planes[::-1] if blue_first else planes
    pixels = planes[0] if len(planes) == 1 else np.ascontiguousarray(planes.transpose(1, 2, 0))
    return pillow.fromarray(pixels)


runtime = CoreMLRuntime()
