"""Turn a function of an ML program into steps to run: constants made, arguments bound, once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dkm_deploy.errors import DkmError
from dkm_deploy.formats.mlpackage.constexpr import Constants, is_constant
from dkm_deploy.formats.mlpackage.dtypes import FP32
from dkm_deploy.formats.mlpackage.limits import check_elements
from dkm_deploy.formats.mlpackage.ml_program import (
    Block,
    Constant,
    Function,
    Operand,
    Operation,
    TensorType,
)
from dkm_deploy.runtimes.mlprogram.control import Body, Branch, Loop
from dkm_deploy.runtimes.mlprogram.kernels import KERNELS, Kernel
from dkm_deploy.runtimes.mlprogram.numerics import (
    Finish,
    Numerics,
    Overflow,
    Source,
    keep_from_zero,
    rounds,
)
from dkm_deploy.runtimes.mlprogram.schema import check_constant, check_types, schema
from dkm_deploy.runtimes.mlprogram.step import (
    Argument,
    KernelCall,
    ProgramStep,
    Value,
    Values,
    prefix_errors,
)

CONTROL = ("cond", "while_loop")  # operations that have no kernel, but blocks


@dataclass(frozen=True)
class CompiledFunction:
    """A function as constants and steps.

    Attributes:
        constants: values that never change, by name.
        body: the steps.
        overflows: of the constants, and of what is computed from them alone.
    """

    constants: Values
    body: Body
    overflows: tuple[Overflow, ...]


def compile_function(
    function: Function, numerics: Numerics, weight_names: Mapping[str, str]
) -> CompiledFunction:
    """Bind all arguments, and run at once what depends on constants only.

    Args:
        function: to be compiled.
        numerics: in which numbers it is computed.
        weight_names: qualified parameter name by the name of a weight in the program.

    Raises:
        DkmError: an operation or one of its inputs is not supported, or a constant is damaged.
    """
    compiler = _Compiler(function, numerics, weight_names)
    body = compiler.body(function.body)
    _check_names(body, {*function.inputs, *function.states, *compiler.known})
    body = replace(body, steps=_with_last_uses(body))
    return CompiledFunction(compiler.known, body, tuple(compiler.overflows))


def to_value(array: NDArray[Any]) -> Value:
    """A stored value as the evaluator holds it: floats in float32, small integers in int32."""
    if array.dtype.kind == "U":
        return str(array) if array.ndim == 0 else tuple(array.tolist())
    if array.dtype.kind == "f":
        return torch.from_numpy(array.astype(np.float32))
    if array.dtype.kind == "b":
        return torch.from_numpy(array.copy())
    wide = array.dtype.itemsize > 4 or array.dtype == np.uint32
    return torch.from_numpy(array.astype(np.int64 if wide else np.int32))


class _Compiler:
    """Compiles the blocks of one function; what they share is kept in attributes."""

    def __init__(
        self, function: Function, numerics: Numerics, weight_names: Mapping[str, str]
    ) -> None:
        self.known: Values = {}
        self.overflows: list[Overflow] = []
        self._stored = Constants(function.body)
        self._opset = function.opset
        self._numerics = numerics
        self._weight_names = weight_names
        self._layers: dict[str, str | None] = {}
        self._types = {**function.inputs}
        for operation in function.body.walk():
            self._types.update(operation.outputs)

    def body(self, block: Block) -> Body:
        """The steps of a block; what depends on constants only is run and left out."""
        steps = []
        for operation in block.operations:
            if is_constant(operation):
                continue
            step = self._step(operation)
            if step.takes or step.varies:
                steps.append(step)
            else:
                step(self.known, self.overflows)
        for output in block.outputs:
            self._name(output)
        return Body(block.inputs, tuple(steps), block.outputs)

    def _step(self, operation: Operation) -> ProgramStep:
        source = self._source(operation)
        with prefix_errors(source):
            for _, kind in operation.outputs:
                check_elements(kind.shape if kind else ())
        if operation.type in CONTROL:
            return self._control(operation, source)
        kernel = KERNELS.get(operation.type)
        if kernel is None or operation.blocks:
            raise DkmError(f"{source} is not supported by the reference evaluator")
        with prefix_errors(source):
            _check_parameters(operation, kernel)
            form = schema(operation.type, self._opset)
            if form:
                check_types(form, self._dtypes(operation))
        names = {
            parameter: tuple(self._name(operand) for operand in operands)
            for parameter, operands in operation.inputs.items()
            if operands and parameter not in kernel.ignored
        }
        with prefix_errors(source):
            computed = [p for p, given in names.items() if any(n not in self.known for n in given)]
            check_constant(form, computed)
            return self._call(operation, source, kernel, names)

    def _call(
        self,
        operation: Operation,
        source: Source,
        kernel: Kernel,
        names: Mapping[str, tuple[str, ...]],
    ) -> ProgramStep:
        arguments = [
            Argument(name, given, kernel.converters[name], name in kernel.variadic)
            for name, given in names.items()
        ]
        bound = tuple(a for a in arguments if any(name not in self.known for name in a.names))
        fixed = {a.parameter: a.take(self.known) for a in arguments if a not in bound}
        if kernel.by_opset:
            fixed["opset"] = self._opset
        finishes = tuple(
            Finish(
                source,
                name,
                kind,
                rounds(kind, self._numerics) and not kernel.exact,
                self._numerics == "range",
            )
            for name, kind in operation.outputs
        )
        takes = frozenset(name for argument in bound for name in argument.names)
        makes = tuple(name for name, _ in operation.outputs)
        act = KernelCall(kernel.run, fixed, bound, finishes)
        return ProgramStep(source, act, takes, makes, varies=kernel.varies)

    def _dtypes(self, operation: Operation) -> dict[str, str]:
        """Name of the element type of each input that is one tensor of a known type."""
        kinds = {
            parameter: self._kind(operands[0])
            for parameter, operands in operation.inputs.items()
            if len(operands) == 1
        }
        return {parameter: kind.dtype.name for parameter, kind in kinds.items() if kind}

    def _kind(self, operand: Operand) -> TensorType | None:
        return self._types.get(operand) if isinstance(operand, str) else operand.tensor_type

    def _control(self, operation: Operation, source: Source) -> ProgramStep:
        bodies = [self.body(block) for block in operation.blocks]
        makes = tuple(name for name, _ in operation.outputs)
        parameter = "pred" if operation.type == "cond" else "loop_vars"
        operands = operation.inputs.get(parameter, ())
        if len(bodies) != 2 or (operation.type == "cond" and len(operands) != 1):
            raise DkmError(f"{source} needs two blocks and the input {parameter}")
        names = tuple(self._name(operand) for operand in operands)
        taken = frozenset(names) | bodies[0].takes | bodies[1].takes
        act: Branch | Loop
        if operation.type == "cond":
            act = Branch(names[0], (bodies[0], bodies[1]), makes)
        else:
            act = Loop(names, bodies[0], bodies[1], makes)
        varies = any(step.varies for body in bodies for step in body.steps)
        return ProgramStep(source, act, taken - self.known.keys(), makes, varies=varies)

    def _source(self, operation: Operation) -> Source:
        """What to call an operation; its outputs are noted to come from the same layer."""
        # Sorted, because the order of inputs in a file means nothing and differs between processes.
        given = [
            (parameter, operand)
            for parameter, operands in sorted(operation.inputs.items())
            for operand in operands
            if isinstance(operand, str)
        ]
        weights = [(p, name) for p, name in given if self._stored.is_weight(name)]
        if weights:
            _, weight = min(weights, key=self._lesser)
            layer: str | None = self._weight_names.get(weight, weight)
        else:
            layer = next((found for _, name in given if (found := self._layers.get(name))), None)
        self._layers.update((name, layer) for name, _ in operation.outputs)
        return Source(operation.name, operation.type, layer)

    def _lesser(self, weight: tuple[str, str]) -> tuple[bool, bool]:
        """Order among an operation's weights: first those whose parameter is known, biases last."""
        parameter, name = weight
        return name not in self._weight_names, not parameter.startswith("weight")

    def _name(self, operand: Operand) -> str:
        """The name of an operand, under which it is put among the known values if constant."""
        name = operand if isinstance(operand, str) else f"constant {id(operand)}"
        if name not in self.known and (name in self._stored or isinstance(operand, Constant)):
            self.known[name] = self._finish(name, to_value(self._stored.get(operand)))
        return name

    def _finish(self, name: str, value: Value) -> Value:
        """A constant in the numbers of this run; what is stored as fp16 stays as it is."""
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return value
        if self._numerics == "fp16" and value.numel() == 1:
            value = keep_from_zero(value)
        kind = TensorType(FP32, tuple(value.shape))
        layer = self._weight_names.get(name, name)
        finish = Finish(
            Source(name, "const", layer),
            name,
            kind,
            self._numerics == "fp16",
            self._numerics == "range",
        )
        return finish(value, self.overflows)


def _check_parameters(operation: Operation, kernel: Kernel) -> None:
    unknown = operation.inputs.keys() - kernel.converters.keys() - kernel.ignored
    missing = kernel.required - {name for name, given in operation.inputs.items() if given}
    if unknown or missing:
        kind, names = ("unknown", unknown) if unknown else ("missing", missing)
        raise DkmError(f"{kind} input {', '.join(sorted(names))}")


def _check_names(body: Body, made: set[str]) -> None:
    """Raise DkmError if a value is used that nothing has made by then."""
    made = made | set(body.inputs)
    for step in body.steps:
        absent = sorted(step.takes - made)
        if absent:
            raise DkmError(f"{step.source} uses {absent[0]!r}, which no operation before it makes")
        made.update(step.makes)
    for name in body.outputs:
        if name not in made:
            raise DkmError(f"no operation makes output {name!r}")


def _with_last_uses(body: Body) -> tuple[ProgramStep, ...]:
    """Note in each step the values that can be dropped after it."""
    needed = set(body.outputs)
    result = []
    for step in reversed(body.steps):
        result.append(replace(step, last_use=tuple((step.takes | set(step.makes)) - needed)))
        needed |= step.takes
    return tuple(reversed(result))
