"""Edit the protobuf of an ML program: where weights are, what lies in weight files, names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from converters.coreml.program_messages import rename_inputs, walk
from converters.coreml.rewriting.decode_operation import Pointer

_OPSET_OF_PALETTES = "CoreML6"  # iOS 16
_OPSET_BEFORE = "CoreML5"
_VERSION_OF_PALETTES = 7  # of the specification, which goes with iOS 16


@dataclass(frozen=True)
class ConstPlace:
    """A ``const`` operation of a weight.

    Attributes:
        function: name of the function that it is in.
        body: of that function.
        operations: that it stands among: of the body, or of a block in it.
        operation: the protobuf.
    """

    function: str
    body: Any
    operations: Any
    operation: Any

    @property
    def output(self) -> str:
        """The name of its value."""
        return str(self.operation.outputs[0].name)

    def rename(self, name: str) -> None:
        """Give its value another name, wherever the function uses it."""
        old = self.output
        self.operation.outputs[0].name = name
        for operation, _ in walk(self.body):
            rename_inputs(operation, lambda used: name if used == old else used)

    def add_behind(self) -> Any:
        """A new operation, empty, right behind it."""
        position = [other.outputs[0].name for other in self.operations if other.outputs].index(
            self.output
        )
        self.operations.insert(position + 1, type(self.operation)())
        return self.operations[position + 1]


def lift_to_palettes(model: Any) -> bool:
    """Make functions of iOS 15, which has no palettes, functions of iOS 16.

    Operations took no other meaning then, only further parameters with a default.

    Returns:
        Whether there was any.
    """
    old = [f for f in model.mlProgram.functions.values() if f.opset == _OPSET_BEFORE]
    for function in old:
        function.opset = _OPSET_OF_PALETTES
        bodies = function.block_specializations
        bodies[_OPSET_OF_PALETTES].CopyFrom(bodies[_OPSET_BEFORE])
        del bodies[_OPSET_BEFORE]
    model.specificationVersion = max(model.specificationVersion, _VERSION_OF_PALETTES)
    return bool(old)


def split_values(
    model: Any, weights: Mapping[tuple[str, str], str]
) -> tuple[dict[str, list[ConstPlace]], list[Any]]:
    """Where weights are held, and all other values that lie in weight files.

    Args:
        model: the protobuf of a package.
        weights: names of weights, by the function and the value that they are held by.
    """
    held: dict[str, list[ConstPlace]] = {name: [] for name in weights.values()}
    others: list[Any] = []
    for name, function in model.mlProgram.functions.items():
        for opset, body in function.block_specializations.items():
            for operation, operations in walk(body):
                output = operation.outputs[0].name if operation.outputs else ""
                weight = weights.get((name, output)) if operation.type == "const" else None
                if weight is not None and opset == function.opset:
                    held[weight].append(ConstPlace(name, body, operations, operation))
                else:
                    others += _file_values(operation)
    return held, others


def pointer(value: Any) -> Pointer:
    """Where a value lies that lies in a weight file."""
    return str(value.blobFileValue.fileName), int(value.blobFileValue.offset)


def _file_values(operation: Any) -> Iterator[Any]:
    """The values of an operation that lie in weight files."""
    bindings = (b for argument in operation.inputs.values() for b in argument.arguments)
    given = [b.value for b in bindings if b.WhichOneof("binding") == "value"]
    for value in (*operation.attributes.values(), *given):
        yield from _in_files(value)


def _in_files(value: Any) -> Iterator[Any]:
    kind = value.WhichOneof("value")
    if kind == "blobFileValue":
        yield value
    elif kind == "immediateValue":
        inner = value.immediateValue
        for part in (*inner.tuple.values, *inner.list.values):
            yield from _in_files(part)
        for pair in inner.dictionary.values:
            yield from _in_files(pair.key)
            yield from _in_files(pair.value)
