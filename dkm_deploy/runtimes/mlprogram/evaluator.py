"""Run a compiled ML program on numpy arrays."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dkm_deploy.errors import DkmError
from dkm_deploy.runtimes import Arrays, Shape, check_inputs
from dkm_deploy.runtimes.mlprogram.compile import (
    Values,
    compile_function,
    finisher,
    to_tensor,
)
from dkm_deploy.runtimes.mlprogram.package import open_package
from dkm_deploy.runtimes.mlprogram.program import Function, TensorType, functions


class Evaluator:
    """A session that runs the default function of a package.

    Numbers: every operation is computed in float32, and a value that the program declares as fp16
    is rounded to fp16 once, when it is made; an overflow becomes infinity, as it would on a device.

    Attributes:
        input_shapes: shape of every input by name; None for a dimension that may change.
    """

    def __init__(self, path: Path, *, round_fp16: bool = True) -> None:
        """Open ``path`` and make its constants.

        Args:
            path: a ``.mlpackage``.
            round_fp16: False computes in float32 throughout.

        Raises:
            DkmError: the package is damaged, or has an operation that is not supported.
        """
        self._path = path
        self._round = round_fp16
        try:
            self._function = next(iter(functions(open_package(path)).values()))
            self._inputs = _tensor_inputs(self._function)
            self._compiled = compile_function(self._function, round_fp16=round_fp16)
        except DkmError as error:
            raise _told(path, error) from error
        self._types = {
            name: kind
            for operation in self._function.body.operations
            for name, kind in operation.outputs
        }
        made = (name for step in self._compiled.steps for name, _ in step.outputs)
        self._available = {*self._inputs, *self._compiled.constants, *made}
        self.input_shapes: Mapping[str, Shape] = {n: kind.shape for n, kind in self._inputs.items()}

    def run(self, inputs: Arrays, keep: Collection[str] = ()) -> dict[str, NDArray[Any]]:
        """Outputs by name, in the types that the program declares.

        Args:
            inputs: arrays by name; images as tensors.
            keep: names of other values of the program to return too; of its constants, those
                that operations use.

        Raises:
            DkmError: an input is missing, unknown, of another shape, or of floats where integers
                are wanted; a name in ``keep`` is unknown; or an operation fails.
        """
        check_inputs(inputs, self.input_shapes)
        wanted = [*self._function.body.outputs, *keep]
        unknown = [name for name in keep if name not in self._available]
        if unknown:
            raise DkmError(f"{self._path}: the program has no value {unknown[0]!r}")
        try:
            with torch.inference_mode():
                values = self._run(
                    {n: self._input(n, array) for n, array in inputs.items()}, wanted
                )
        except DkmError as error:
            raise _told(self._path, error) from error
        return {name: self._output(name, values[name]) for name in wanted}

    def _run(self, values: Values, wanted: list[str]) -> Values:
        values = self._compiled.constants | values
        for step in self._compiled.steps:
            step(values)
            for name in step.last_use:
                if name not in wanted:
                    del values[name]
        return values

    def _input(self, name: str, array: NDArray[Any]) -> Tensor:
        kind = self._inputs[name]
        if array.dtype.kind == "f" and not kind.dtype.floating:
            raise DkmError(f"input {name!r} is {array.dtype}; the program takes {kind.dtype.name}")
        tensor = to_tensor(np.asarray(array))
        finish = finisher(kind, round_fp16=self._round)
        if not isinstance(tensor, Tensor) or finish is None:
            raise DkmError(f"input {name!r} is text; the program takes {kind.dtype.name}")
        return finish(tensor)

    def _output(self, name: str, value: Any) -> NDArray[Any]:
        kind = self._types.get(name) or self._inputs.get(name)
        array = np.asarray(value)
        if kind is None or kind.dtype.name == "string":
            return array
        if kind.dtype.floating and not self._round:
            return array
        with np.errstate(over="ignore"):
            return array.astype(kind.dtype.held)


def _tensor_inputs(function: Function) -> dict[str, TensorType]:
    inputs = {}
    for name, kind in function.inputs.items():
        if kind is None:
            raise DkmError(f"input {name!r} is a state or a list, which is not supported")
        inputs[name] = kind
    return inputs


def _told(path: Path, error: DkmError) -> DkmError:
    """The error on one line, with the package named in front, once."""
    message = " ".join(str(error).split())
    return error if message.startswith(str(path)) else DkmError(f"{path}: {message}")
