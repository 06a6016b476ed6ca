"""Collects the nodes and initializers of one weight's decoding."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper


@dataclass
class Builder:
    """Nodes and initializers; constants and tables are shared between weights by their names.

    Attributes:
        weight: name of the parameter.
        unique: another name, for a weight that is decoded in several places.
    """

    weight: str
    unique: str = ""
    nodes: list[NodeProto] = field(default_factory=list)
    tensors: dict[str, TensorProto] = field(default_factory=dict)

    def tensor(self, name: str, values: NDArray[Any]) -> str:
        """An initializer."""
        self.tensors[name] = numpy_helper.from_array(values, name)
        return name

    def int64(self, values: Sequence[int]) -> str:
        """A shape, shared by value; int64 is what Reshape and Slice ask for."""
        return self.tensor("dkm:shape_" + "_".join(map(str, values)), np.array(values, np.int64))

    def int32(self, values: int | Sequence[int]) -> str:
        """A constant of index arithmetic, shared by value."""
        name = str(values) if isinstance(values, int) else "_".join(map(str, ["", *values]))
        return self.tensor(f"dkm:int{name}", np.array(values, np.int32))

    def up_to(self, stop: int) -> str:
        """int32 ``0, 1 .. stop - 1``, made by the graph; shared."""
        bounds = self.int32(0), self.int32(stop), self.int32(1)
        return self.node("Range", *bounds, into=f"dkm:to{stop}")

    def node(self, op: str, *inputs: str, into: str = "", **attributes: Any) -> str:
        """Add a node and give its output; a name in ``into`` that is there already is shared."""
        name = into or f"{self._stem}:{len(self.nodes)}"
        if all(name != node.output[0] for node in self.nodes):
            self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def rename_last(self, name: str) -> None:
        """Give the value of the last node a name of its own."""
        self.nodes[-1].output[0] = name

    @property
    def _stem(self) -> str:
        """Start of the names of steps; short, for a deep model's names outweigh one-bit layers."""
        return f"w{zlib.crc32((self.unique or self.weight).encode()):08x}"
