"""Put the decodings of palettes into a graph that uses their weights."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TypeProto, helper, numpy_helper

from converters.onnx.encode import Encoding, encode, encode_rows, holds_rows, merged
from converters.onnx.kernel import DOMAIN, encode_product, product_users
from converters.onnx.options import Decode
from dkm_deploy.errors import DkmError
from dkm_deploy.palette import Palette

FLAT = "dkm:flat"
_SHARED = "dkm:"  # start of the names of values that several weights use


def insert(
    model: ModelProto,
    palettes: Mapping[str, Palette],
    decode: Decode = "load",
    narrow: Collection[int] = (),
) -> None:
    """Decode ``palettes`` in the graph of a model, in place.

    A weight that nodes only gather rows of (an embedding) is not decoded as a whole where its
    layout permits: the packed rows are gathered.

    Args:
        model: its nodes use values called after the weights, which nothing gives yet.
        palettes: of these weights.
        decode: "load" lets runtimes decode at load, for the latency of the dense model; "packed"
            keeps them from it, for the least memory: weights are decoded in every run; "int8"
            gives matrix products to a kernel of ONNX Runtime with 8-bit weights (not in browsers),
            and decodes the others at load.
        narrow: widths to store as ONNX's own types; see :func:`converters.onnx.encode.encode`.

    Raises:
        DkmError: an input or a step of the model is called like a weight, ``decode`` is "packed"
            and the model has no input, or it is "int8" and a LUT does not lie on an 8-bit grid.
    """
    graph = model.graph
    _check_names(graph, palettes)
    ranks = _ranks(graph)
    anchor = _anchor(graph) if decode == "packed" else Encoding((), ())
    flat = FLAT if decode == "packed" else ""
    whole, inner = [anchor], []
    for weight, palette in palettes.items():
        uses = _uses_of_rows(graph, weight, palette, ranks)
        if decode == "int8" and not uses:
            uses = [
                (node, encode_product(weight, palette, node))
                for node in product_users(graph, weight, palette)
            ]
        if not uses:
            whole.append(encode(weight, palette, flat=flat, narrow=narrow))
        for node, encoding in uses:
            _replace(graph, node, encoding.nodes)
            inner.append(encoding)
        if uses:
            _remove_unused(graph, weight)
    _finish(model, merged(whole), inner)


def _finish(model: ModelProto, whole: Encoding, inner: list[Encoding]) -> None:
    """Whole weights first, and before them what all share; parts stand where they are used."""
    graph = model.graph
    shared = merged(Encoding(tuple(_shared_by(e.nodes)), ()) for e in inner).nodes
    there = {node.output[0] for node in shared}
    nodes = [*shared, *(node for node in whole.nodes if node.output[0] not in there), *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(merged([whole, *inner]).tensors)
    if any(node.domain == DOMAIN for node in graph.node):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))


def _shared_by(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    return (node for node in nodes if node.output[0].startswith(_SHARED))


def _remove_unused(graph: GraphProto, weight: str) -> None:
    """Remove what turned a weight for products that no longer ask for it."""
    kept = [node for node in graph.node if weight not in node.input]
    del graph.node[:]
    graph.node.extend(kept)


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


def _uses_of_rows(
    graph: GraphProto, weight: str, palette: Palette, ranks: Mapping[str, int]
) -> list[tuple[NodeProto, Encoding]]:
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
    if len(rows) < len(users) or _elsewhere(graph, weight) or not holds_rows(palette):
        return []
    return [
        (node, encode_rows(weight, palette, ids, ranks[ids], node.output[0]))
        for node in rows
        for ids in [node.input[1]]
    ]


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
    """Put nodes in place of a node, those that are there already left out.

    Shared ones are left to the head of the graph. Of two uses, the second finds the first's nodes.
    """
    place = next(i for i, one in enumerate(graph.node) if one.output == node.output)
    kept = list(graph.node)
    made = {name for one in (*kept[:place], *kept[place + 1 :]) for name in one.output}
    kept[place : place + 1] = [
        one for one in others if one.output[0] not in made and not one.output[0].startswith(_SHARED)
    ]
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
