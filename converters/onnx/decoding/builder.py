"""Collects the nodes and initializers of one weight's decoding."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

# The opsets from which on an operator is there, or takes what it is given.
ELEMENTS_SINCE = 11  # GatherElements
_RANGE_SINCE = 11
_MOD_SINCE = 10
_SLICE_BY_INPUTS_SINCE = 10
_PAGE = 16


@dataclass
class Builder:
    """Nodes and initializers; constants and tables are shared between weights by their names.

    Attributes:
        weight: name of the parameter.
        unique: another name, for a weight that is decoded in several places.
        opset: of the model, 7 or newer; its operators may be used.
        nodes: by the name of what they give, in an order that runs.
        tensors: initializers by name.
    """

    weight: str
    unique: str = ""
    opset: int = ELEMENTS_SINCE
    nodes: dict[str, ir.Node] = field(default_factory=dict)
    tensors: dict[str, ir.Value] = field(default_factory=dict)

    def tensor(self, name: str, values: NDArray[Any] | ir.TensorProtocol) -> ir.Value:
        """An initializer; one of this name that is there already is shared."""
        if name not in self.tensors:
            self.tensors[name] = initializer(name, values)
        return self.tensors[name]

    def int64(self, values: Sequence[int]) -> ir.Value:
        """A shape, shared by value; int64 is what Reshape and Slice ask for."""
        return self.tensor("dkm:shape_" + "_".join(map(str, values)), np.array(values, np.int64))

    def int32(self, values: int | Sequence[int]) -> ir.Value:
        """A constant of index arithmetic, shared by value."""
        name = str(values) if isinstance(values, int) else "_".join(map(str, ["", *values]))
        return self.tensor(f"dkm:int{name}", np.array(values, np.int32))

    def up_to(self, stop: int) -> ir.Value:
        """int32 ``0, 1 .. stop - 1``, made by the graph; shared.

        Before Range it is a tensor, or made of two of them where that saves bytes.
        """
        name = f"dkm:to{stop}"
        if self.opset >= _RANGE_SINCE:
            return self.multiples(stop, 1, into=name)
        if stop <= _PAGE or stop % _PAGE:
            return self.tensor(name, np.arange(stop, dtype=np.int32))
        pages = self.up_to(stop // _PAGE)
        column = self.node("Reshape", pages, self.int64([-1, 1]), into=f"{name}:column")
        high = self.node("Mul", column, self.int32(_PAGE), into=f"{name}:high")
        grid = self.node("Add", high, self.up_to(_PAGE), into=f"{name}:grid")
        return self.node("Reshape", grid, self.int64([-1]), into=name)

    def multiples(self, count: int, step: int, into: str) -> ir.Value:
        """int32 ``0, step .. (count - 1) * step``, made by the graph; shared."""
        if self.opset < _RANGE_SINCE:
            return self.node("Mul", self.up_to(count), self.int32(step), into=into)
        bounds = self.int32(0), self.int32(count * step), self.int32(step)
        return self.node("Range", *bounds, into=into)

    def remainder(self, value: ir.Value, divisor: int, into: str) -> ir.Value:
        """``value % divisor`` of int32 that is not negative; shared."""
        by = self.int32(divisor)
        if self.opset >= _MOD_SINCE:
            return self.node("Mod", value, by, into=into)
        whole = self.node("Div", value, by, into=f"{into}:whole")
        taken = self.node("Mul", whole, by, into=f"{into}:taken")
        return self.node("Sub", value, taken, into=into)

    def first(self, flat: ir.Value, count: int) -> ir.Value:
        """The first values of one dimension."""
        if self.opset >= _SLICE_BY_INPUTS_SINCE:
            return self.node("Slice", flat, self.int64([0]), self.int64([count]))
        return self.node("Slice", flat, axes=[0], starts=[0], ends=[count])

    def node(self, op: str, *inputs: ir.Value, into: str = "", **attributes: Any) -> ir.Value:
        """Add a node and give its output; a name in ``into`` that is there already is shared."""
        name = into or f"{self._stem}:{len(self.nodes)}"
        if name not in self.nodes:
            self.nodes[name] = make_node(op, inputs, [name], **attributes)
        return self.nodes[name].outputs[0]

    def rename_last(self, name: str) -> None:
        """Give the value of the last node a name of its own."""
        _, node = self.nodes.popitem()
        node.outputs[0].name = name
        self.nodes[name] = node

    @property
    def _stem(self) -> str:
        """Start of the names of steps; short, for a deep model's names outweigh one-bit layers."""
        return f"w{zlib.crc32((self.unique or self.weight).encode()):08x}"


def initializer(name: str, values: NDArray[Any] | ir.TensorProtocol) -> ir.Value:
    """A value called ``name`` that holds a tensor; its bytes are not copied."""
    tensor = ir.Tensor(values) if isinstance(values, np.ndarray) else values
    tensor.name = name
    return ir.Value(name=name, const_value=tensor)


def make_node(
    op: str,
    inputs: Sequence[ir.Value | None],
    outputs: Sequence[str],
    *,
    name: str = "",
    domain: str = "",
    **attributes: Any,
) -> ir.Node:
    """A node with new values, called ``outputs``, and attributes that are an int or several."""
    values = [ir.Value(name=output) for output in outputs]
    kept = [
        ir.AttrInt64(key, number) if isinstance(number, int) else ir.AttrInt64s(key, number)
        for key, number in sorted(attributes.items())
    ]
    return ir.Node(domain, op, inputs, kept, outputs=values, name=name)
