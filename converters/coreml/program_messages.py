"""The protobuf messages of an ML program: walk its operations, rename what they take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def walk(block: Any) -> Iterator[tuple[Any, Any]]:
    """All operations of a block and of the blocks in it, each with those that it stands among."""
    for operation in block.operations:
        yield operation, block.operations
        for inner in operation.blocks:
            yield from walk(inner)


def rename_inputs(operation: Any, to: Callable[[str], str]) -> None:
    """Give the values that an operation takes by name the names ``to`` makes of theirs."""
    for argument in operation.inputs.values():
        for binding in argument.arguments:
            if binding.WhichOneof("binding") == "name":
                binding.name = to(binding.name)
