"""The outputs of a program: their names, and a node of its own for each."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind, TensorArgument
from torch.fx import Node
from torch.utils import _pytree as pytree

_DEFAULT = "output"


def output_names(outputs: Any) -> tuple[str, ...]:
    """A name for each tensor that a model gives, in order, each name once.

    ``output`` for a tensor and ``output_0``, ``output_1`` for a sequence. Of a mapping its keys,
    with the places of what is nested behind them: ``{"hidden": (a, b)}`` gives ``hidden_0`` and
    ``hidden_1``. What is no tensor, such as None or a text, has no name: it is not in the file.
    """
    if torch.is_tensor(outputs):
        return (_DEFAULT,)
    if isinstance(outputs, Mapping):
        return unique("_".join(path) or _DEFAULT for path in _paths(outputs))
    count = sum(torch.is_tensor(leaf) for leaf in pytree.tree_leaves(outputs))
    return tuple(f"{_DEFAULT}_{place}" for place in range(count))


def unique(names: Iterable[str], taken: Collection[str] = ()) -> tuple[str, ...]:
    """The names, those that are there already or in ``taken`` with a number behind them."""
    given = list(names)
    found: list[str] = []
    for name in given:
        free, number = name, 0
        while free in found or free in taken or (number and free in given):
            number += 1
            free = f"{name}_{number}"
        found.append(free)
    return tuple(found)


def separate_outputs(program: ExportedProgram) -> None:
    """Copy outputs that another output, an input or a weight is, in place.

    What each output names is then a value of its own, which all formats can have names for.
    """
    output = program.graph.output_node()
    specs = program.graph_signature.output_specs
    nodes = list(output.args[0])
    seen: set[Node] = set()
    for place, (node, spec) in enumerate(zip(nodes, specs, strict=True)):
        if spec.kind is not OutputKind.USER_OUTPUT or not isinstance(node, Node):
            continue
        if node in seen or node.op == "placeholder":
            with program.graph.inserting_before(output):
                nodes[place] = program.graph.call_function(torch.ops.aten.clone.default, (node,))
            nodes[place].meta["val"] = node.meta["val"]
            spec.arg = TensorArgument(name=nodes[place].name)
        seen.add(node)
    output.args = (tuple(nodes),)
    program.graph_module.recompile()


def _paths(value: Any) -> Iterator[list[str]]:
    """The keys and places that lead to each tensor, in the order of ``tree_leaves``."""
    for path, leaf in pytree.tree_flatten_with_path(value)[0]:
        if torch.is_tensor(leaf):
            yield [path_step(key) for key in path]


def path_step(key: Any) -> str:
    """A key of a mapping, a place in a sequence, or the name of a field."""
    parts = (getattr(key, name, None) for name in ("key", "idx", "name"))
    return str(next((part for part in parts if part is not None), ""))
