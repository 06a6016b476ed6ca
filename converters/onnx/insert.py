"""Put the decodings of palettes into a graph that uses their weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, get_args

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TypeProto, helper, numpy_helper

from converters.onnx.encode import Encoding, encode, encode_rows, holds_rows, merged
from dkm_deploy.errors import DkmError
from dkm_deploy.palette import Palette

Decode = Literal["load", "packed"]
"""When a runtime decodes: once, when it loads the file, or in every run."""
DECODES: tuple[Decode, ...] = get_args(Decode)

FLAT = "dkm:flat"


def insert(model: ModelProto, palettes: Mapping[str, Palette], decode: Decode = "load") -> None:
    """Decode ``palettes`` in the graph of a model, in place.

    A weight that nodes only gather rows of (an embedding) is not decoded as a whole where its
    layout permits: the packed rows are gathered.

    Args:
        model: its nodes use values called after the weights, which nothing gives yet.
        palettes: of these weights.
        decode: "load" lets runtimes decode at load, for the latency of the dense model; "packed"
            keeps them from it, for the least memory: weights are decoded in every run.

    Raises:
        DkmError: an input or a step of the model is called like a weight, or ``decode`` is
            "packed" and the model has no input.
    """
    graph = model.graph
    if decode not in DECODES:
        raise DkmError(f"decode is {decode!r}; it must be one of {', '.join(DECODES)}")
    _check_names(graph, palettes)
    ranks = _ranks(graph)
    anchor = _anchor(graph) if decode == "packed" else Encoding((), ())
    flat = FLAT if decode == "packed" else ""
    encodings: list[Encoding] = []
    for weight, palette in palettes.items():
        users = _row_users(graph, weight, palette, ranks)
        for node in users:
            ids, into = node.input[1], node.output[0]
            encodings.append(encode_rows(weight, palette, ids, ranks[ids], into))
            _replace(graph, node, encodings[-1].nodes)
        if not users:
            encodings.append(encode(weight, palette, flat=flat))
            anchor = merged([anchor, encodings[-1]])
    nodes = [*_shared(encodings), *anchor.nodes, *graph.node]
    del graph.node[:]
    graph.node.extend(_once(nodes))
    graph.initializer.extend(merged([anchor, *encodings]).tensors)


def _shared(encodings: Iterable[Encoding]) -> list[NodeProto]:
    """The nodes that several weights share; they depend on nothing else."""
    return [n for e in encodings for n in e.nodes if n.output[0].startswith("dkm:")]


def _once(nodes: Iterable[NodeProto]) -> list[NodeProto]:
    found: dict[str, NodeProto] = {}
    for node in nodes:
        found.setdefault(node.output[0], node)
    return list(found.values())


def _check_names(graph: GraphProto, palettes: Mapping[str, Palette]) -> None:
    made = {name for node in graph.node for name in node.output}
    taken = made | {value.name for value in graph.input} | {t.name for t in graph.initializer}
    for weight in palettes:
        if weight in taken:
            raise DkmError(f"{weight}: an input or a step of the model has this name; rename one")


def _ranks(graph: GraphProto) -> dict[str, int]:
    """Rank of every value whose shape the graph tells."""
    values = [*graph.input, *graph.value_info, *graph.output]
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in values if _has_shape(v.type)}
    return ranks | {tensor.name: len(tensor.dims) for tensor in graph.initializer}


def _has_shape(kind: TypeProto) -> bool:
    return bool(kind.HasField("tensor_type") and kind.tensor_type.HasField("shape"))


def _row_users(
    graph: GraphProto, weight: str, palette: Palette, ranks: Mapping[str, int]
) -> list[NodeProto]:
    """The nodes that use the weight, if each gathers rows by numbers that a run gives."""
    users = [node for node in graph.node if weight in node.input]
    constants = {tensor.name for tensor in graph.initializer}
    rows = [
        node
        for node in users
        if node.op_type == "Gather"
        and node.input[0] == weight
        and ranks.get(node.input[1], 0) > 0
        and node.input[1] not in constants
        and all(attribute.name != "axis" or attribute.i == 0 for attribute in node.attribute)
    ]
    alone = len(rows) == len(users) and not _elsewhere(graph, weight)
    return rows if alone and holds_rows(palette) else []


def _elsewhere(graph: GraphProto, weight: str) -> bool:
    """Whether a weight is an output, or used in the body of an If, Loop or Scan."""
    if any(output.name == weight for output in graph.output):
        return True
    bodies = [
        body
        for node in graph.node
        for attribute in node.attribute
        for body in ([attribute.g] if attribute.HasField("g") else attribute.graphs)
    ]
    return any(
        any(weight in node.input for node in body.node) or _elsewhere(body, weight)
        for body in bodies
    )


def _replace(graph: GraphProto, node: NodeProto, others: Iterable[NodeProto]) -> None:
    """Put nodes in place of a node; shared ones are left to the head of the graph."""
    place = next(i for i, one in enumerate(graph.node) if one is node)
    kept = list(graph.node)
    kept[place : place + 1] = [o for o in others if not o.output[0].startswith("dkm:")]
    del graph.node[:]
    graph.node.extend(kept)


def _anchor(graph: GraphProto) -> Encoding:
    """``[-1]``, computed from an input so that no runtime takes it for a constant.

    A runtime decodes at load what depends on constants alone. The size of an input costs nothing,
    and ``min(size, 0) - 1`` is -1 whatever it is.
    """
    constants = {tensor.name for tensor in graph.initializer}
    names = (v.name for v in graph.input if v.type.HasField("tensor_type"))
    source = next((name for name in names if name not in constants), None)
    if source is None:
        raise DkmError("decode='packed' needs a model with a tensor input, and this has none")
    nodes = (
        helper.make_node("Size", [source], ["dkm:size"]),
        helper.make_node("Min", ["dkm:size", "dkm:none"], ["dkm:nothing"]),
        helper.make_node("Add", ["dkm:nothing", "dkm:rest"], [FLAT]),
    )
    constant = {"dkm:none": np.array(0, np.int64), "dkm:rest": np.array([-1], np.int64)}
    tensors = tuple(numpy_helper.from_array(value, name) for name, value in constant.items())
    return Encoding(nodes, tensors)
