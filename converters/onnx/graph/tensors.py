"""The values of an ONNX model: which tensors it holds, and which nodes use a value.

Names are looked up in the whole model, subgraphs included, and not scope by scope. That is exact
wherever a name is defined once; ``definitions`` tells where it is not.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from converters.onnx.graph.bodies import handed_on
from dkm_deploy.errors import DkmError, reason_of

DEFAULT_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class TensorPlace:
    """A tensor in the model.

    Attributes:
        name: of the value that it is.
        tensor: the values; None for a sparse one.
        dims: its shape.
        place: "" in the main graph, else the node and attribute of the subgraph, or the function.
        replaceable: it is an input of its graph too, so that a caller may give another tensor.
    """

    name: str
    tensor: TensorProto | None
    dims: tuple[int, ...]
    place: str = ""
    replaceable: bool = False


@dataclass(frozen=True)
class Use:
    """A place where a value is used: an input of a node, or, without one, a graph's output."""

    node: NodeProto | None
    position: int = 0

    @property
    def op(self) -> str:
        """Operator with its domain, such as ``Conv`` or ``com.microsoft::Attention``."""
        return op_name(self.node) if self.node else ""


@dataclass(frozen=True)
class GraphValues:
    """What a model's graphs hold; functions are apart.

    Attributes:
        held: tensors of the main graph and of its subgraphs, in the order of the file.
        definitions: how many graphs define each name.
        producers: the node that makes each value by name.
        uses: of each value by name; not as an output of a body that hands it on.
        handed: the names under which bodies of If, Loop and Scan get and give a value, by its name.
    """

    held: Sequence[TensorPlace]
    definitions: Mapping[str, int]
    producers: Mapping[str, NodeProto]
    uses: Mapping[str, Sequence[Use]]
    handed: Mapping[str, Sequence[str]]

    @cached_property
    def by_name(self) -> Mapping[str, TensorPlace]:
        """The tensor that each name stands for."""
        return {each.name: each for each in self.held}


def graph_values(model: ModelProto) -> GraphValues:
    """Collect the tensors, names and uses of all graphs of ``model``."""
    held: list[TensorPlace] = []
    definitions: Counter[str] = Counter()
    producers: dict[str, NodeProto] = {}
    uses: defaultdict[str, list[Use]] = defaultdict(list)
    handed: defaultdict[str, list[str]] = defaultdict(list)
    for graph, place in graphs(model.graph):
        inside = list(_find_tensors(graph, place))
        held += inside
        definitions.update({tensor.name for tensor in inside} | _find_producers(graph))
        for node in graph.node:
            producers.update(dict.fromkeys(node.output, node))
            for position, name in enumerate(node.input):
                uses[name].append(Use(node, position))
            for name, other in handed_on(node):
                handed[name].append(other)
        for output in graph.output:
            if not place or output.name not in handed:  # outer graphs come first
                uses[output.name].append(Use(None))
    return GraphValues(held, definitions, producers, uses, handed)


def graphs(graph: GraphProto, place: str = "") -> Iterator[tuple[GraphProto, str]]:
    """``graph`` and all graphs in its nodes' attributes, at any depth, with their places."""
    yield graph, place
    yield from _subgraphs(graph.node, place)


def held_by_functions(model: ModelProto) -> Iterator[TensorPlace]:
    """Tensors in the bodies of the model's own functions."""
    for function in model.functions:
        place = f"{function.domain}::{function.name}"
        yield from _constants(function.node, place)
        for graph, inner in _subgraphs(function.node, place):
            yield from _find_tensors(graph, inner)


def default_opset(model: ModelProto) -> int:
    """The opset of the standard operators; 0 if the model does not say."""
    return max((o.version for o in model.opset_import if o.domain in DEFAULT_DOMAINS), default=0)


def op_name(node: NodeProto) -> str:
    """Operator with its domain, such as ``Conv`` or ``com.microsoft::Attention``."""
    return node.op_type if node.domain in DEFAULT_DOMAINS else f"{node.domain}::{node.op_type}"


def _subgraphs(nodes: Iterable[NodeProto], place: str) -> Iterator[tuple[GraphProto, str]]:
    for node in nodes:
        for attribute in node.attribute:
            inside = [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
            label = f"{attribute.name} of {', '.join(node.output[:1])}"
            for graph in inside:
                yield from graphs(graph, f"{label} in {place}" if place else label)


def _find_tensors(graph: GraphProto, place: str) -> Iterator[TensorPlace]:
    inputs = {value.name for value in graph.input}
    for tensor in graph.initializer:
        yield TensorPlace(tensor.name, tensor, tuple(tensor.dims), place, tensor.name in inputs)
    for sparse in graph.sparse_initializer:
        name = sparse.values.name
        yield TensorPlace(name, None, tuple(sparse.dims), place, name in inputs)
    yield from _constants(graph.node, place)


def _constants(nodes: Iterable[NodeProto], place: str) -> Iterator[TensorPlace]:
    for node in nodes:
        if op_name(node) != "Constant" or not node.output:
            continue
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield TensorPlace(node.output[0], attribute.t, tuple(attribute.t.dims), place)
            elif attribute.HasField("sparse_tensor"):
                yield TensorPlace(node.output[0], None, tuple(attribute.sparse_tensor.dims), place)


def _find_producers(graph: GraphProto) -> set[str]:
    inputs = {value.name for value in graph.input}
    return inputs | {name for node in graph.node for name in node.output if name}


def array_of(name: str, tensor: TensorProto) -> NDArray[Any]:
    """The values of a tensor.

    Raises:
        DkmError: they do not fill its shape.
    """
    try:
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise DkmError(f"{name}: its values cannot be read: {reason_of(error)}") from error
    if array.shape != tuple(tensor.dims):
        raise DkmError(f"{name}: its values do not fit its shape {list(tensor.dims)}")
    return array
