"""Run a compiled ML program on numpy arrays."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dkm_deploy._support.argument_checks import usage
from dkm_deploy._support.paths import existing_path
from dkm_deploy.errors import DkmError
from dkm_deploy.formats.mlpackage.limits import check_elements
from dkm_deploy.formats.mlpackage.ml_program import TensorType, chosen, functions
from dkm_deploy.formats.mlpackage.package import open_package
from dkm_deploy.runtimes import Arrays, InterfaceTranslator, Shape, Tap, check_inputs
from dkm_deploy.runtimes.mlprogram.compile import compile_function, to_value
from dkm_deploy.runtimes.mlprogram.inputs import batch_options, described_inputs, taken_inputs
from dkm_deploy.runtimes.mlprogram.interface import package_translator
from dkm_deploy.runtimes.mlprogram.numerics import (
    Finish,
    Numerics,
    Overflow,
    Source,
    check_numerics,
    rounds,
)
from dkm_deploy.runtimes.mlprogram.state import State
from dkm_deploy.runtimes.mlprogram.step import Values
from dkm_deploy.runtimes.mlprogram.taps import find_taps

States = dict[str, NDArray[Any]]


class MLProgramEvaluator:
    """A session that runs one function of a Core ML package, on any OS.

    Every operation is computed in float32. ``numerics`` says which results are then rounded to
    fp16, once, when they are made. An overflow becomes infinity, as on a device, and is recorded.

    Args:
        path: a ``.mlpackage``; nothing is written to it.
        numerics: "fp32" keeps everything in float32; "range" does too and records what fp16 could
            not hold; "declared" rounds what the program declares as fp16; "fp16" rounds every
            float, also inputs and weights.
        function: name of the function; None is the default function of the package.

    Attributes:
        functions: names of the package's functions, the default one first.
        input_shapes: shape of every input by name; None for a dimension that may change.
        batches: see :class:`dkm_deploy.runtimes.BatchedSession`.
        interface: how inputs and outputs of the original model map to those of the file.
        states: names of the states that :meth:`make_state` makes.
        values: names that ``keep`` accepts.
        overflows: overflows of the last run, in the order of computation; empty before the first
            run, and always with ``numerics="fp32"``. With "range" the values that would overflow.

    Raises:
        DkmError: the package is damaged, has an unsupported operation or no such function, or
            ``numerics`` is unknown.

    Example:
        >>> evaluator = dkm.MLProgramEvaluator("model.mlpackage", numerics="fp16")
        >>> dict(evaluator.input_shapes)
        {'input': (1, 8)}
    """

    @usage('dkm.MLProgramEvaluator("net.mlpackage")')
    def __init__(
        self, path: str | Path, *, numerics: Numerics = "declared", function: str | None = None
    ) -> None:
        self._path = existing_path(path)
        self._numerics = check_numerics(numerics)
        try:
            package = open_package(self._path)
            found = functions(package)
            self.functions = tuple(found)
            self._function = chosen(found, function)
            self._inputs = _tensors("input", self._function.inputs)
            self._described = described_inputs(package, self._function)
            self._states = _tensors("state", self._function.states)
            self.states = tuple(self._states)
            self._weight_names = package.weight_names
            self._compiled = compile_function(self._function, self._numerics, self._weight_names)
            self.interface: InterfaceTranslator = package_translator(package, self._function)
        except DkmError as error:
            raise _prefix_error(self._path, error) from error
        self._types = {n: k for o in self._function.body.operations for n, k in o.outputs}
        made = (name for step in self._compiled.body.steps for name in step.makes)
        self.values = frozenset({*self._inputs, *self._compiled.constants, *made})
        self.input_shapes: Mapping[str, Shape] = {n: i.shape for n, i in self._described.items()}
        self.batches = batch_options(self._described)
        self.overflows: tuple[Overflow, ...] = ()

    @property
    def computes_half(self) -> bool:
        """Whether some result is rounded to fp16."""
        kinds = (kind for op in self._function.body.operations for _, kind in op.outputs)
        return any(rounds(kind, self._numerics) for kind in kinds)

    def make_state(self) -> States:
        """Make zeros for every state of the function, to be passed to :meth:`run`.

        Returns:
            Arrays by name of state; empty for a program without state.

        Raises:
            DkmError: the shape of a state is not fixed.

        Example:
            >>> dkm.MLProgramEvaluator("model.mlpackage").make_state()
            {}
        """
        return {
            name: np.zeros(_fixed_shape(name, k), k.dtype.numpy_name)
            for name, k in self._states.items()
        }

    def taps(self, weights: Collection[str]) -> tuple[Tap, ...]:
        """Find the values of the program that are inputs and outputs of layers.

        Args:
            weights: qualified parameter names of the layers' weights.

        Returns:
            Names of the two values for each weight that the program uses in one layer.

        Example:
            >>> evaluator = dkm.MLProgramEvaluator("model.mlpackage")
            >>> [tap.weight for tap in evaluator.taps(["weight"])]
            ['weight']
        """
        return find_taps(
            self._function.body.operations,
            self._weight_names,
            self._compiled.constants,
            self.values,
            weights,
        )

    def run(
        self, inputs: Arrays, keep: Collection[str] = (), state: States | None = None
    ) -> dict[str, NDArray[Any]]:
        """Run the function on arrays.

        Args:
            inputs: arrays by name; an image as its pixels, (1, channels, height, width). An input
                with a default value in the package may be left out.
            keep: names of other values of the program to return too. A constant can be kept if an
                operation uses it. Values inside the blocks of cond and while_loop cannot be kept,
                because they have more than one value.
            state: from :meth:`make_state`, or of the run before. The run replaces the arrays of the
                states that it writes. None starts from zeros and discards the states afterwards.

        Returns:
            Arrays by name, in the dtypes that the program declares; with ``numerics="fp32"`` all
            floats are float32.

        Raises:
            DkmError: an input or state is missing or unknown, has a shape that the package does not
                allow, or is float where integers are needed; a name in ``keep`` is unknown; or an
                operation fails.

        Example:
            >>> evaluator = dkm.MLProgramEvaluator("model.mlpackage")
            >>> evaluator.run({"input": np.ones((1, 8), np.float32)})["output"].shape
            (1, 4)
        """
        taken = taken_inputs(self._described, inputs)
        state = self.make_state() if state is None else state
        check_inputs(state, {name: kind.shape for name, kind in self._states.items()}, "state")
        unknown = [name for name in keep if name not in self.values]
        if unknown:
            raise DkmError(f"{self._path}: the program has no value {unknown[0]!r}")
        wanted = [*self._function.body.outputs, *keep]
        overflows = list(self._compiled.overflows)
        try:
            with torch.inference_mode():
                given = {n: self._input(n, array, overflows) for n, array in taken.items()}
                states = {n: State(self._state(n, array)) for n, array in state.items()}
                values = self._run(
                    {**self._compiled.constants, **given, **states}, wanted, overflows
                )
        except DkmError as error:
            raise _prefix_error(self._path, error) from error
        finally:
            self.overflows = tuple(overflows)
        state.update((n, self._array(self._states[n], s.value)) for n, s in states.items())
        return {name: self._output(name, values[name]) for name in wanted}

    def _run(self, values: Values, wanted: list[str], overflows: list[Overflow]) -> Values:
        for step in self._compiled.body.steps:
            step(values, overflows)
            for name in step.last_use:
                if name not in wanted:
                    del values[name]
        return values

    def _input(self, name: str, array: NDArray[Any], overflows: list[Overflow]) -> Tensor:
        kind = self._inputs[name]
        tensor = to_value(array)
        if not isinstance(tensor, Tensor):
            raise DkmError(f"input {name!r} is text; the program takes {kind.dtype.name}")
        rounded, noted = rounds(kind, self._numerics), self._numerics == "range"
        finish = Finish(Source(name, "input", None), name, kind, rounded, noted)
        return finish(tensor, overflows)

    def _state(self, name: str, array: NDArray[Any]) -> Tensor:
        tensor = to_value(np.asarray(array))
        if not isinstance(tensor, Tensor):
            raise DkmError(f"state {name!r} is text; it holds {self._states[name].dtype.name}")
        return tensor

    def _output(self, name: str, value: Any) -> NDArray[Any]:
        return self._array(self._types.get(name) or self._inputs.get(name), value)

    def _array(self, kind: TensorType | None, value: Any) -> NDArray[Any]:
        array = np.asarray(value)
        if kind is None or kind.dtype.name == "string":
            return array
        if kind.dtype.is_floating and self._numerics in ("fp32", "range"):
            return array
        with np.errstate(over="ignore"):
            return array.astype(kind.dtype.numpy_name)


def _tensors(what: str, types: Mapping[str, TensorType | None]) -> dict[str, TensorType]:
    tensors = {}
    for name, kind in types.items():
        if kind is None:
            raise DkmError(f"{what} {name!r} is a list or dictionary, which is not supported")
        try:
            check_elements(kind.shape)
        except DkmError as error:
            raise DkmError(f"{what} {name!r}: {error}") from error
        tensors[name] = kind
    return tensors


def _fixed_shape(name: str, kind: TensorType) -> tuple[int, ...]:
    shape = tuple(n for n in kind.shape if n is not None)
    if len(shape) != len(kind.shape):
        raise DkmError(f"state {name!r} has the shape {kind.shape}, which is not fixed")
    return shape


def _prefix_error(path: Path, error: DkmError) -> DkmError:
    """The error on one line, with the package named in front, once."""
    message = " ".join(str(error).split())
    return error if message.startswith(str(path)) else DkmError(f"{path}: {message}")
