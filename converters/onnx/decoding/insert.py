"""Put the decodings of palettes into a graph that uses their weights."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from onnx import GraphProto, ModelProto, NodeProto, TypeProto, helper

from converters.onnx.decoding.chunked import use_of_packed
from converters.onnx.decoding.embedding_rows import encode_rows, holds_rows
from converters.onnx.decoding.encode import Encoding, encode, merged
from converters.onnx.decoding.matmul_nbits import DOMAIN, encode_product, product_users
from converters.onnx.decoding.runtime_zero import anchor
from converters.onnx.decoding.split_4bit import use_in_halves
from converters.onnx.decoding.transposed import TURNED, can_turn, use_turned
from converters.onnx.graph.consumers import feeds_recurrent, used_elsewhere, users_of
from converters.onnx.options import Decode
from dkm_deploy.errors import DkmError
from dkm_deploy.palette import Palette

ZERO = "dkm:zero"
_SHARED = "dkm:"  # start of the names of values that several weights use


def insert(
    model: ModelProto,
    palettes: Mapping[str, Palette],
    decode: Decode = "load",
    narrow: Collection[int] = (),
    *,
    folds: bool = True,
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
        narrow: widths to store as ONNX's own types; see
            :func:`converters.onnx.decoding.encode.encode`.
        folds: whether runtimes decode at load what depends on constants alone, so that "packed" has
            something to keep them from.

    Raises:
        DkmError: an input or a step of the model is called like a weight, ``decode`` is "packed"
            and the model has no input, or it is "int8" and a LUT does not lie on an 8-bit grid.
    """
    graph = model.graph
    _check_names(graph, palettes)
    ranks = _ranks(graph)
    anchored = _anchored(graph) if decode == "packed" and folds else Encoding((), ())
    zero = ZERO if anchored.nodes else ""
    whole: list[Encoding] = []
    inner: list[Encoding] = []
    for weight, palette in palettes.items():
        uses = _uses_of_rows(graph, weight, palette, ranks)
        if decode == "int8" and not uses:
            uses = [
                (node, encode_product(weight, palette, node))
                for node in product_users(graph, weight, palette)
            ]
        if decode == "packed" and not uses:
            uses = use_of_packed(graph, weight, palette, folds=folds)
        if decode == "load" and not uses and palette.bits not in narrow:
            uses = use_in_halves(graph, weight, palette)
        if not uses:
            whole.append(_whole(graph, weight, palette, zero, narrow))
        for node, encoding in uses:
            _replace(graph, node, encoding.nodes)
            inner.append(encoding)
        if uses:
            _remove_unused(graph, weight)
    _finish(model, merged(whole), [anchored, *inner] if whole else inner)


def _whole(
    graph: GraphProto, weight: str, palette: Palette, zero: str, narrow: Collection[int]
) -> Encoding:
    """The decoding of a weight, transposed if that is what its users want."""
    if not can_turn(graph, weight, palette):
        elements = not feeds_recurrent(graph, weight)
        return encode(weight, palette, zero=zero, narrow=narrow, elements=elements)
    into = use_turned(graph, weight)
    return encode(weight, palette.transposed(), zero=zero, narrow=narrow, into=into)


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
    turns = [node for node in users_of(graph, weight) if node.op_type == "Transpose"]
    for node in turns:
        if not users_of(graph, node.output[0]) and not used_elsewhere(graph, node.output[0]):
            graph.node.remove(node)


def _check_names(graph: GraphProto, palettes: Mapping[str, Palette]) -> None:
    made = {name for node in graph.node for name in node.output}
    taken = made | {value.name for value in graph.input} | {t.name for t in graph.initializer}
    for weight in palettes:
        if taken.intersection([weight, weight + TURNED]):
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
    users = users_of(graph, weight)
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
    if len(rows) < len(users) or used_elsewhere(graph, weight) or not holds_rows(palette):
        return []
    return [
        (node, encode_rows(weight, palette, ids, ranks[ids], node.output[0]))
        for node in rows
        for ids in [node.input[1]]
    ]


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


def _anchored(graph: GraphProto) -> Encoding:
    """The anchor of all that is decoded apart from its one use."""
    constants = {tensor.name for tensor in graph.initializer}
    names = (v.name for v in graph.input if v.type.HasField("tensor_type"))
    source = next((name for name in names if name not in constants), None)
    if source is None:
        raise DkmError("decode='packed' needs a model with a tensor input, and this has none")
    return anchor(source, ZERO)
