"""Turn a function of an ML program into steps to run: constants made, arguments bound, once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dkm_deploy.errors import DkmError
from dkm_deploy.runtimes.mlprogram.constexpr import Constants, is_constant
from dkm_deploy.runtimes.mlprogram.kernels import KERNELS, Kernel
from dkm_deploy.runtimes.mlprogram.program import Function, Operand, Operation, TensorType

Value = Tensor | str
Values = dict[str, Value]
Finish = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Argument:
    """Where a parameter gets its value from."""

    parameter: str
    names: tuple[str, ...]
    convert: Callable[[Any], Any] | None
    variadic: bool

    def take(self, values: Values) -> Any:
        """The argument, ready to be passed."""
        if self.variadic:
            return [values[name] for name in self.names]
        value = values[self.names[0]]
        return value if self.convert is None else self.convert(value)


@dataclass(frozen=True)
class Step:
    """One operation, ready to run.

    Attributes:
        label: operation type and first output, for messages.
        run: the implementation.
        fixed: arguments that never change.
        bound: the other arguments.
        outputs: name, and what makes the value one of its declared type (None: nothing to do).
        last_use: values that no later step needs.
    """

    label: str
    run: Callable[..., Any]
    fixed: Mapping[str, Any]
    bound: tuple[Argument, ...]
    outputs: tuple[tuple[str, Finish | None], ...]
    last_use: tuple[str, ...] = ()

    def __call__(self, values: Values) -> None:
        """Run, and put the outputs among ``values``. Raises DkmError if the operation fails."""
        try:
            changing = {argument.parameter: argument.take(values) for argument in self.bound}
            result = self.run(**self.fixed, **changing)
            results = result if isinstance(result, tuple) else (result,)
            for (name, finish), tensor in zip(self.outputs, results, strict=True):
                values[name] = tensor if finish is None else finish(tensor)
        except (RuntimeError, ValueError, IndexError, TypeError, KeyError) as error:
            raise DkmError(f"{self.label} failed: {error}") from error


@dataclass(frozen=True)
class Compiled:
    """A function as constants and steps."""

    constants: Values
    steps: tuple[Step, ...]


def compile_function(function: Function, *, round_fp16: bool) -> Compiled:
    """Bind all arguments, and run at once what depends on constants only.

    Args:
        function: to be compiled.
        round_fp16: round every value that is declared fp16.

    Raises:
        DkmError: an operation or one of its inputs is not supported, or a constant is damaged.
    """
    stored = Constants(function.body)
    known: Values = {}
    steps: list[Step] = []
    for operation in function.body.operations:
        if is_constant(operation):
            continue
        step = _step(operation, stored, known, round_fp16)
        if step.bound:
            steps.append(step)
        else:
            step(known)
    for output in function.body.outputs:
        _name(output, stored, known)
    _check_names(function, steps, known)
    return Compiled(known, _with_last_uses(steps, function.body.outputs))


def to_tensor(array: NDArray[Any]) -> Value:
    """A stored value as the evaluator holds it: floats in float32, small integers in int32."""
    if array.dtype.kind == "U":
        return str(array)
    if array.dtype.kind == "f":
        return torch.from_numpy(array.astype(np.float32))
    if array.dtype.kind == "b":
        return torch.from_numpy(array.copy())
    wide = array.dtype.itemsize > 4 or array.dtype == np.uint32
    return torch.from_numpy(array.astype(np.int64 if wide else np.int32))


def finisher(kind: TensorType | None, *, round_fp16: bool) -> Finish | None:
    """What gives a result its declared type; None where the type is not known."""
    if kind is None:
        return None
    if kind.dtype.floating:
        return _round_fp16 if kind.dtype.name == "fp16" and round_fp16 else Tensor.float
    return Tensor.bool if kind.dtype.name == "bool" else Tensor.int


def _round_fp16(tensor: Tensor) -> Tensor:
    return tensor.half().float()


def _step(operation: Operation, stored: Constants, known: Values, round_fp16: bool) -> Step:
    label = f"operation {operation.type} ({operation.output!r})"
    kernel = KERNELS.get(operation.type)
    if kernel is None:
        raise DkmError(f"{label} is not supported by the reference evaluator")
    _check_parameters(label, operation, kernel)
    fixed: dict[str, Any] = {}
    bound = []
    for parameter, operands in operation.inputs.items():
        if parameter in kernel.ignored or not operands:
            continue
        names = tuple(_name(operand, stored, known) for operand in operands)
        argument = Argument(
            parameter, names, kernel.converters[parameter], parameter in kernel.variadic
        )
        if all(name in known for name in names):
            fixed[parameter] = argument.take(known)
        else:
            bound.append(argument)
    rounds = round_fp16 and not kernel.exact
    outputs = tuple((name, finisher(kind, round_fp16=rounds)) for name, kind in operation.outputs)
    return Step(label, kernel.run, fixed, tuple(bound), outputs)


def _name(operand: Operand, stored: Constants, known: Values) -> str:
    """The name of an operand, under which it is put among the known values if it is constant."""
    name = operand if isinstance(operand, str) else f"constant {id(operand)}"
    if name not in known and (name in stored or not isinstance(operand, str)):
        known[name] = to_tensor(stored.get(operand))
    return name


def _check_parameters(label: str, operation: Operation, kernel: Kernel) -> None:
    unknown = operation.inputs.keys() - kernel.converters.keys() - kernel.ignored
    missing = kernel.required - {name for name, given in operation.inputs.items() if given}
    if unknown or missing:
        kind, names = ("unknown", unknown) if unknown else ("missing", missing)
        raise DkmError(f"{label}: {kind} input {', '.join(sorted(names))}")


def _check_names(function: Function, steps: list[Step], known: Values) -> None:
    """Raise DkmError if a value is used that nothing has made by then."""
    made = {*function.inputs, *known}
    for step in steps:
        for name in (name for argument in step.bound for name in argument.names):
            if name not in made:
                raise DkmError(f"{step.label} uses {name!r}, which nothing makes before it")
        made.update(name for name, _ in step.outputs)
    for name in function.body.outputs:
        if name not in made:
            raise DkmError(f"output {name!r} is made by no operation")


def _with_last_uses(steps: list[Step], outputs: tuple[str, ...]) -> tuple[Step, ...]:
    """Note in each step the values that can be dropped after it."""
    needed = set(outputs)
    result = []
    for step in reversed(steps):
        used = {name for argument in step.bound for name in argument.names}
        made = {name for name, _ in step.outputs}
        result.append(replace(step, last_use=tuple((used | made) - needed)))
        needed |= used
    return tuple(reversed(result))
