"""Where the values of a function of a program go."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from dkm_deploy.formats.mlpackage.constexpr import Constants
from dkm_deploy.formats.mlpackage.ml_program import Block, Constant, Function, Operation

# They move or cast the values of their input x; concat, those of all of its values.
_MOVING = {
    *("identity", "transpose", "reshape", "squeeze", "expand_dims", "flatten2d", "cast"),
    *("slice_by_index", "slice_by_size", "split"),
}
_CONCAT = "concat"
_SHAPE_ONLY = ("shape",)


@dataclass(frozen=True)
class Use:
    """Where a value goes; no operation is an output of a block."""

    operation: Operation | None
    parameter: str = ""


class FunctionValues:
    """The uses of the values of a function by name, and which of them are constants."""

    def __init__(self, function: Function) -> None:
        self.constants = Constants(function.body)
        self.uses: defaultdict[str, list[Use]] = defaultdict(list)
        self.shapes: dict[str, tuple[int | None, ...]] = {}
        self.made_by: dict[str, Operation] = {}
        self._collect(function.body)

    def _collect(self, block: Block) -> None:
        for operation in block.operations:
            for name, kind in operation.outputs:
                self.shapes[name] = () if kind is None else kind.shape
                self.made_by[name] = operation
            for parameter, operands in operation.inputs.items():
                for operand in operands:
                    if isinstance(operand, str):
                        self.uses[operand].append(Use(operation, parameter))
            for inner in operation.blocks:
                self._collect(inner)
        for name in block.outputs:
            self.uses[name].append(Use(None))

    def is_constant(self, name: str) -> bool:
        """Whether a value is made of nothing but constants, moved or cast."""
        seen, waiting = {name}, [name]
        while waiting:
            name = waiting.pop()
            if name in self.constants:
                continue
            operation = self.made_by.get(name)
            if operation is None or operation.type not in (*_MOVING, _CONCAT):
                return False
            key = "values" if operation.type == _CONCAT else "x"
            sources = [o for o in operation.inputs.get(key, ()) if isinstance(o, str)]
            waiting += [source for source in sources if source not in seen]
            seen.update(sources)
        return True

    def final_uses(self, name: str) -> Iterator[Use]:
        """Uses of a value, looking through operations that only move or cast it."""
        seen, waiting = {name}, [name]
        while waiting:
            for use in self.uses.get(waiting.pop(), ()):
                operation = use.operation
                if operation is not None and self._moves(operation, use.parameter):
                    onward = [made for made, _ in operation.outputs if made not in seen]
                    seen.update(onward)
                    waiting += onward
                elif operation is None or operation.type not in _SHAPE_ONLY:
                    yield use

    def _moves(self, operation: Operation, parameter: str) -> bool:
        """Whether an operation only moves or casts what it takes as ``parameter``."""
        if operation.type == _CONCAT:  # how converters put the gates of an LSTM together
            return parameter == "values" and all(
                isinstance(o, Constant) or self.is_constant(o) for o in operation.inputs["values"]
            )
        return operation.type in _MOVING and parameter == "x"
