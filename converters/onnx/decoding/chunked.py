"""Weights of files that stay packed, decoded right before their use, and large ones in parts.

Such a file decodes its weights in every run. What it decodes hangs on the size of what the weight
is applied to, so that a runtime cannot decode one weight while it is still busy with another. Of a
large weight, some output channels are decoded, used and dropped before the next ones are: no run
ever holds it as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import onnx_ir as ir

from converters.onnx.decoding.builder import Builder, make_node
from converters.onnx.decoding.encode import encode
from converters.onnx.decoding.encoding import Encoding, Replacement, finish, merge
from converters.onnx.decoding.matmul_nbits import is_product
from converters.onnx.decoding.runtime_zero import anchor
from converters.onnx.decoding.transposed import TURNED, only_user
from converters.onnx.graph.consumers import applies, attribute, name_of
from dkm_deploy.palette import Palette

PART = ".part."
Bounds = Sequence[tuple[int, int]]
_LARGE = 1 << 19  # weights
_ROWS = 8  # a part is a multiple of these, so that its symbols end with a byte


def use_of_packed(
    graph: ir.Graph, weight: ir.Value, palette: Palette, *, folds: bool
) -> list[Replacement]:
    """What replaces a weight that one node uses, or that node's result; else empty.

    It is empty too where nothing has to be done: ``folds`` is false and the weight is not split.
    A weight is split for a Gemm, a Conv of one group and a MatMul behind a Transpose, if it has one
    LUT, no per-channel scale, and no vectors along the output channels.
    """
    user = only_user(graph, weight, palette)
    if user is None:
        return []
    node, turned = user
    source = node.inputs[0]
    # The size of a constant is one too.
    constant = source is None or source is weight or source.is_initializer()
    if node.op_type == "Transpose" or source is None or constant:
        return []
    splits = turned or is_product(node, weight) or _is_conv(node, weight)
    bounds = _bounds(palette) if splits else []
    if not folds and not bounds:
        return []
    name = name_of(weight)
    anchored = anchor(source, f"{name}:zero") if folds else Encoding()
    zero = anchored.result if folds else None
    if bounds:
        steps = merge([anchored, *_in_parts(name, palette, node, bounds, zero)])
        return [Replacement(node.outputs[0], node, steps)]
    if not turned:
        decoded = encode(name, palette, zero=zero)
        return [Replacement(weight, node, merge([anchored, decoded]))]
    decoded = encode(name, palette.transpose(), zero=zero, into=f"{name}{TURNED}")
    (transposed,) = weight.consumers()
    return [Replacement(transposed.outputs[0], node, merge([anchored, decoded]))]


def _is_conv(node: ir.Node, weight: ir.Value) -> bool:
    """Whether a Conv of one group has this weight, and its bias, if any, is a constant."""
    if not applies(node, "Conv", weight):
        return False
    constant = all(value is None or value.is_initializer() for value in node.inputs[2:])
    return attribute(node, "group", 1) == 1 and constant


def _in_parts(
    weight: str, palette: Palette, node: ir.Node, bounds: Bounds, zero: ir.Value | None
) -> list[Encoding]:
    """Decode and apply part by part, and put the results side by side."""
    steps: list[Encoding] = []
    products: list[Encoding] = []
    for number, (start, stop) in enumerate(bounds):
        part = f"{PART}{number}"
        rows = Palette(palette.indices[start:stop], palette.lut, palette.axis)
        decoded = encode(weight, rows, zero=zero, into=f"{weight}{part}", part=part)
        result = f"{name_of(node.outputs[0])}{part}"
        products.append(apply_to_part(node, decoded.result, result, (start, stop)))
        steps += [decoded, products[-1]]
    return [*steps, put_together(node, products)]


def _bounds(palette: Palette) -> Bounds:
    """First and last row, excluded, of each part; none where the weight is not split."""
    rows = palette.shape[0]
    plain = prod(palette.groups) == 1 and palette.scale is None
    parts = min(-(-palette.size // _LARGE), rows // _ROWS)
    if parts < 2 or not plain or (palette.cluster_dim > 1 and palette.axis == 0):
        return []
    step = -(-rows // (parts * _ROWS)) * _ROWS
    return [(start, min(start + step, rows)) for start in range(0, rows, step)]


def apply_to_part(node: ir.Node, weight: ir.Value, result: str, rows: tuple[int, int]) -> Encoding:
    """``node`` with the part ``weight``, and that of its bias, if it has one."""
    graph, changed = Builder(result), {1: weight}
    if node.op_type == "MatMul":
        turned = f"{name_of(weight)}{TURNED}"
        changed[1] = graph.node("Transpose", weight, into=turned, perm=[1, 0])
    elif len(node.inputs) > 2 and node.inputs[2] is not None:
        bounds = [graph.int64([place]) for place in rows]
        changed[2] = graph.node("Slice", node.inputs[2], *bounds, into=f"{result}.bias")
    graph.nodes[result] = with_inputs(node, changed, result)
    return finish(graph)


def put_together(node: ir.Node, products: Sequence[Encoding]) -> Encoding:
    """The results of the parts side by side, as ``node`` gives them."""
    axis = -1 if node.op_type == "MatMul" else 1  # a Gemm's result has two dimensions
    results = [product.result for product in products]
    name = node.name or ""
    joined = make_node("Concat", results, [name_of(node.outputs[0])], name=name, axis=axis)
    return Encoding((joined,))


def with_inputs(node: ir.Node, changed: Mapping[int, ir.Value], result: str) -> ir.Node:
    """A copy of a node, without its name, with other inputs by place; it gives ``result``."""
    copy = ir.Node(
        node.domain,
        node.op_type,
        [changed.get(place, value) for place, value in enumerate(node.inputs)],
        node.attributes,
        overload=node.overload,
        outputs=[ir.Value(name=result)],
        name="",
        doc_string=node.doc_string,
        metadata_props=dict(node.metadata_props),
    )
    copy.meta.update(node.meta)
    return copy
