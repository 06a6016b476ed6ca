"""Say the same graph in fewer bytes: short names where nobody reads them, no default attributes.

In a small net of few bits the graph outweighs the palettes.
"""

from __future__ import annotations

import string
from collections.abc import Collection, Iterator
from itertools import count, product
from typing import Any

import onnx
import onnx_ir as ir
from onnx import defs, helper

_INDICES = ".indices"
_LETTERS = string.ascii_letters + string.digits
# Of these operators' attributes, which have no default in the schema, what the standard says of
# a missing one: "If not present, ... defaults to 1 / 0 along each spatial axis".
_SPATIAL = {"dilations": 1, "strides": 1, "pads": 0}
_WINDOWED = {"Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool"}


def shorten_names(model: ir.Model, weights: Collection[str], cast: Collection[str]) -> None:
    """Rename what lies between the nodes, and the indices of palettes, in place.

    Inputs, outputs, weights, LUTs, scales and biases keep their names: by these files are read
    back, and layers found.

    Args:
        model: with the decodes in place.
        weights: the names of all palettized weights.
        cast: the names of dense weights that are stored in another type.
    """
    graphs = [model.graph, *model.graph.subgraphs()]
    between = [value for graph in graphs for value in _between(graph)]
    held = [v for graph in graphs for v in graph.initializers.values() if _is_ours(v, weights)]
    renamed = [
        value
        for value in (*between, *held)
        if value.name not in cast and not _names_a_weight(value, weights)
    ]
    kept = {value.name for graph in graphs for value in _all(graph)}
    kept -= {value.name for value in renamed}
    short = (name for name in _names() if name not in kept)
    for value in renamed:
        value.name = next(short)
    for graph in graphs:
        for node in graph:
            node.name = None


def _between(graph: ir.Graph) -> Iterator[ir.Value]:
    ends = set(graph.outputs)
    for node in graph:
        yield from (value for value in node.outputs if value.name and value not in ends)


def _all(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def _is_ours(value: ir.Value, weights: Collection[str]) -> bool:
    """Whether an initializer is a constant of the decodes, or indices."""
    name = value.name or ""
    return name.startswith("dkm:") or name.partition(_INDICES)[0] in weights


def _names_a_weight(value: ir.Value, weights: Collection[str]) -> bool:
    """Whether a name is that of a weight, maybe in another form, such as ``fc.weight.T``."""
    name = value.name or ""
    if _INDICES in name:
        return False
    starts = (i for i, letter in enumerate(name) if letter == ".")
    return name in weights or any(name[:end] in weights for end in starts)


def _names() -> Iterator[str]:
    """a, b, .. 9, aa, ab, .."""
    for length in count(1):
        yield from map("".join, product(_LETTERS, repeat=length))


def drop_default_attributes(model: ir.Model) -> None:
    """Remove attributes that say what a missing one means, in place."""
    version = model.opset_imports[""]
    for graph in (model.graph, *model.graph.subgraphs()):
        for node in graph:
            if node.domain == "":
                _drop(node, version)


def _drop(node: ir.Node, version: int) -> None:
    known = defs.get_schema(node.op_type, version).attributes
    spatial = _SPATIAL if node.op_type in _WINDOWED else {}
    for name, attribute in list(node.attributes.items()):
        default = known[name].default_value
        if name in spatial:
            is_default = set(attribute.as_ints()) == {spatial[name]}
        else:  # the others may hold tensors and whole graphs, so they are not looked at for nothing
            is_default = bool(default.type) and _value(ir.to_proto(attribute)) == _value(default)
        if is_default:
            del node.attributes[name]


def _value(attribute: onnx.AttributeProto) -> Any:
    """Its type and value."""
    return attribute.type, helper.get_attribute_value(attribute)
