"""Write calls into the graph of an exported program."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node
from torch.fx.node import map_arg

_aten = torch.ops.aten


class GraphWriter:
    """Calls and constants, put before a node of a program, each with its value's type and shape.

    Args:
        program: whose graph is written to.
        before: where.
        like: the node whose layer calls are of; by default it is ``before``.
    """

    def __init__(self, program: ExportedProgram, before: Node, like: Node | None = None) -> None:
        self._module, self._before, self._like = program.graph_module, before, like or before
        self._mode = self._like.meta["val"].fake_mode

    def call(self, operation: Any, *args: Any, **kwargs: Any) -> Node:
        """A call of an ATen operation."""
        graph = self._module.graph
        with graph.inserting_before(self._before):
            node: Node = graph.call_function(operation, args, kwargs)
        node.meta.update({k: v for k, v in self._like.meta.items() if k != "val"})
        given, keywords = map_arg((args, kwargs), lambda arg: arg.meta["val"])
        with self._mode:
            node.meta["val"] = operation(*given, **keywords)
        return node

    def constant(self, value: Tensor) -> Node:
        """A tensor that the program holds."""
        number = 0
        while hasattr(self._module, name := f"_constant_of_{self._before.name}_{number}"):
            number += 1
        self._module.register_buffer(name, value.contiguous())
        with self._module.graph.inserting_before(self._before):
            node: Node = self._module.graph.get_attr(name)
        node.meta["val"] = self._mode.from_tensor(value)
        return node

    def add(self, x: Any, y: Any) -> Node:
        """``x + y``."""
        return self.call(_aten.add.Tensor, x, y)

    def sub(self, x: Any, y: Any) -> Node:
        """``x - y``."""
        return self.call(_aten.sub.Tensor, x, y)

    def mul(self, x: Any, y: Any) -> Node:
        """``x * y``."""
        return self.call(_aten.mul.Tensor, x, y)
