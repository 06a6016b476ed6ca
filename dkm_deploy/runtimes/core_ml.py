"""Run Core ML packages with Core ML itself, on macOS.

This module has not been run on a Mac yet: its calls follow the documentation of coremltools.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dkm_deploy.errors import DkmError
from dkm_deploy.runtimes import Arrays, Shape, check_inputs
from dkm_deploy.runtimes.mlprogram.package import open_package
from dkm_deploy.runtimes.mlprogram.program import functions
from dkm_deploy.runtimes.mlprogram.proto import coremltools, quiet


class CoreMLSession:
    """A package compiled and loaded by Core ML.

    Attributes:
        input_shapes: shape of every input by name; None for a dimension that may change.
    """

    def __init__(self, path: Path, compute_units: str) -> None:
        """Load ``path``. Raises DkmError if Core ML refuses it."""
        function = next(iter(functions(open_package(path)).values()))
        self.input_shapes: Mapping[str, Shape] = {
            name: kind.shape for name, kind in function.inputs.items() if kind is not None
        }
        ct = coremltools()
        try:
            with quiet():
                units = ct.ComputeUnit[compute_units]
                self._model = ct.models.MLModel(str(path), compute_units=units)
        except (RuntimeError, KeyError) as error:
            raise DkmError(f"{path}: Core ML cannot load it: {error}") from error
        self._path = path

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Outputs by name. Raises DkmError if an input does not fit or Core ML fails."""
        check_inputs(inputs, self.input_shapes)
        try:
            outputs = self._model.predict(dict(inputs))
        except RuntimeError as error:
            raise DkmError(f"{self._path}: Core ML failed: {error}") from error
        return {name: np.asarray(value) for name, value in outputs.items()}


class CoreMLRuntime:
    """Implements :class:`dkm_deploy.runtimes.Runtime`.

    Args:
        compute_units: name of a ``coremltools.ComputeUnit``: ALL, CPU_ONLY, CPU_AND_GPU or
            CPU_AND_NE.
    """

    suffixes = (".mlpackage",)
    native = True

    def __init__(self, compute_units: str = "ALL") -> None:
        self._compute_units = compute_units
        self.name = f"Core ML ({compute_units})"

    def unavailable(self) -> str | None:
        """Why Core ML cannot run here, or None."""
        if sys.platform == "darwin":
            return None
        return f"Core ML runs on macOS only; this is {platform.system()}"

    def load(self, path: Path) -> CoreMLSession:
        """Load a package. Raises DkmError off macOS, or if Core ML refuses the package."""
        reason = self.unavailable()
        if reason:
            raise DkmError(f"{path}: {reason}")
        return CoreMLSession(path, self._compute_units)


runtime = CoreMLRuntime()
