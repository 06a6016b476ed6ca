"""Put the decodings of palettes into a graph that uses their weights."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import onnx_ir as ir

from converters.onnx.decoding.bfloat16 import is_bfloat16
from converters.onnx.decoding.builder import ELEMENTS_SINCE
from converters.onnx.decoding.chunked import use_of_packed
from converters.onnx.decoding.embedding_rows import gathered_rows
from converters.onnx.decoding.encode import encode
from converters.onnx.decoding.encoding import Encoding, Replacement, SharedParts
from converters.onnx.decoding.matmul_nbits import DOMAIN, products
from converters.onnx.decoding.runtime_zero import anchor
from converters.onnx.decoding.split_4bit import use_in_halves
from converters.onnx.decoding.transposed import (
    TURNED,
    can_turn,
    remove_unused_transposes,
    use_turned,
)
from converters.onnx.graph.consumers import feeds_recurrent, name_of
from converters.onnx.options import Decode
from dkm_deploy.errors import DkmError
from dkm_deploy.palette import Palette

ZERO = "dkm:zero"
_SHARED = "dkm:"  # start of the names of values that several weights use


def insert(
    graph: ir.Graph,
    weights: Mapping[str, ir.Value],
    palettes: Mapping[str, Palette],
    decode: Decode = "load",
    narrow: Collection[int] = (),
    *,
    folds: bool = True,
    opset: int = ELEMENTS_SINCE,
) -> None:
    """Decode ``palettes`` in a graph, in place. The work grows with the number of weights.

    A weight that nodes only gather rows of (an embedding) is not decoded as a whole where its
    layout permits: the packed rows are gathered. Weights that are decoded as a whole stand first,
    and before them what several weights share; what is decoded for one use stands before it.

    Args:
        graph: the main graph of a model.
        weights: by name, values that its nodes use and nothing gives yet; of a known dtype where
            that is bfloat16.
        palettes: of these weights.
        decode: "load" lets runtimes decode at load, for the latency of the dense model; "packed"
            keeps them from it, for the least memory: weights are decoded in every run; "int8"
            gives matrix products to a kernel of ONNX Runtime with 8-bit weights (not in browsers),
            and decodes the others at load.
        narrow: widths to store as ONNX's own types; see
            :func:`converters.onnx.decoding.encode.encode`.
        folds: whether runtimes decode at load what depends on constants alone, so that "packed" has
            something to keep them from.
        opset: of the model, 7 or newer; only "load" is for those before 11.

    Raises:
        DkmError: an input or a step of the model is called like a weight, ``decode`` is "packed"
            and the model has no input, or it is "int8" and a LUT does not lie on an 8-bit grid.
    """
    _check_names(graph, palettes)
    edit = _Edit(graph, opset)
    anchored = decode == "packed" and folds
    for name, palette in palettes.items():
        weight = weights[name]
        found = gathered_rows(graph, weight, palette, opset)
        if decode == "int8" and not found:
            found = products(graph, weight, palette)
        if decode == "packed" and not found:
            found = use_of_packed(graph, weight, palette, folds=folds)
        elements = opset >= ELEMENTS_SINCE and not is_bfloat16(weight)
        if decode == "load" and not found and elements and palette.bits not in narrow:
            found = use_in_halves(graph, weight, palette)
        if found:
            edit.replace(found)
            remove_unused_transposes(graph, weight)
        else:
            edit.decode_whole(weight, palette, edit.zero() if anchored else None, narrow)
    edit.finish()


class _Edit:
    """A graph that is edited, and what has been put into it."""

    def __init__(self, graph: ir.Graph, opset: int) -> None:
        self._graph = graph
        self._opset = opset
        self._given = SharedParts()
        self._shared: list[ir.Node] = []
        self._whole: list[ir.Node] = []
        self._zero: ir.Value | None = None
        self._places = {node: place for place, node in enumerate(graph)}

    def replace(self, replacements: Iterable[Replacement]) -> None:
        """Put encodings of a weight in the place of values; the first has what they share."""
        for replacement in sorted(replacements, key=lambda each: self._places[each.before]):
            self._replace(replacement)

    def _replace(self, replacement: Replacement) -> None:
        old, place = replacement.value, replacement.before
        result = replacement.encoding.result
        result.type, result.shape = old.type, old.shape
        nodes = self._new(replacement.encoding)
        self._graph.insert_before(place, nodes)
        self._places.update(dict.fromkeys(nodes, self._places[place]))
        old.replace_all_uses_with(result, replace_graph_outputs=True)
        if old.producer() is place:
            self._graph.remove(place, safe=True)

    def decode_whole(
        self, weight: ir.Value, palette: Palette, zero: ir.Value | None, narrow: Collection[int]
    ) -> None:
        """Decode a weight for all its users, transposed if that is what they want."""
        name, plain = name_of(weight), not is_bfloat16(weight)
        if can_turn(self._graph, weight, palette):
            encoding = encode(
                name,
                palette.transpose(),
                zero=zero,
                narrow=narrow,
                into=f"{name}{TURNED}",
                elements=plain,
                opset=self._opset,
            )
            use_turned(self._graph, weight, encoding.result)
        else:
            elements = plain and not feeds_recurrent(self._graph, weight)
            encoding = encode(
                name, palette, zero=zero, narrow=narrow, elements=elements, opset=self._opset
            )
            weight.replace_all_uses_with(encoding.result)
        self._whole += self._new(encoding)

    def zero(self) -> ir.Value:
        """A zero for all that is decoded apart from its one use. Raises DkmError without inputs."""
        if self._zero is None:
            encoding = anchor(_first_input(self._graph), ZERO)
            self._new(encoding)
            self._zero = encoding.result
        return self._zero

    def finish(self) -> None:
        """Put what is shared, and then the whole weights, at the head of the graph."""
        self._graph.insert_before(self._graph[0], [*self._shared, *self._whole])
        if any(node.domain == DOMAIN for node in self._graph):
            self._graph.opset_imports.setdefault(DOMAIN, 1)

    def _new(self, encoding: Encoding) -> list[ir.Node]:
        """The nodes of an encoding that are neither there already nor shared."""
        new = self._given.new(encoding)
        for value in new.tensors:
            self._graph.register_initializer(value)
        self._shared += [node for node in new.nodes if _is_shared(node)]
        return [node for node in new.nodes if not _is_shared(node)]


def _is_shared(node: ir.Node) -> bool:
    return name_of(node.outputs[0]).startswith(_SHARED)


def _check_names(graph: ir.Graph, palettes: Mapping[str, Palette]) -> None:
    taken = {value.name for node in graph for value in node.outputs}
    taken.update(value.name for value in graph.inputs)
    taken.update(graph.initializers)
    for weight in palettes:
        if taken.intersection([weight, weight + TURNED]):
            raise DkmError(f"{weight}: an input or a step of the model has this name; rename one")


def _first_input(graph: ir.Graph) -> ir.Value:
    """The first tensor that a caller gives."""
    for value in graph.inputs:
        if isinstance(value.type, ir.TensorType) and not value.is_initializer():
            return value
    raise DkmError("decode='packed' needs a model with a tensor input, and this has none")
