"""Weights of files that stay packed, decoded right before their use, and large ones in parts.

Such a file decodes its weights in every run. What it decodes hangs on the size of what the weight
is applied to, so that a runtime cannot decode one weight while it is still busy with another. Of a
large weight, some output channels are decoded, used and dropped before the next ones are: no run
ever holds it as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from onnx import GraphProto, NodeProto, helper, numpy_helper

from converters.onnx.decoding.encode import Encoding, encode, merged
from converters.onnx.decoding.matmul_nbits import is_product
from converters.onnx.decoding.runtime_zero import anchor
from converters.onnx.decoding.transposed import TURNED, only_user
from converters.onnx.graph.consumers import applies, attributes_of
from dkm_deploy.palette import Palette

PART = ".part."
Bounds = Sequence[tuple[int, int]]
_LARGE = 1 << 19  # weights
_ROWS = 8  # a part is a multiple of these, so that its symbols end with a byte


def use_of_packed(
    graph: GraphProto, weight: str, palette: Palette, *, folds: bool
) -> list[tuple[NodeProto, Encoding]]:
    """The one node that uses a weight, and what to put in its place; empty if there are several.

    It is empty too where nothing has to be done: ``folds`` is false and the weight is not split.
    A weight is split for a Gemm, a Conv of one group and a MatMul behind a Transpose, if it has one
    LUT, no per-channel scale, and no vectors along the output channels.
    """
    user = only_user(graph, weight, palette)
    if user is None:
        return []
    node, turned = user
    # The size of a constant is one too.
    constants = {weight, *(tensor.name for tensor in graph.initializer)}
    if node.op_type == "Transpose" or node.input[0] in constants:
        return []
    splits = turned or is_product(graph, node, weight) or _is_conv(graph, node, weight)
    bounds = _bounds(palette) if splits else []
    if not folds and not bounds:
        return []
    anchored = anchor(node.input[0], f"{weight}:zero") if folds else Encoding((), ())
    zero = f"{weight}:zero" if folds else ""
    if bounds:
        steps = _in_parts(weight, palette, node, bounds, zero)
    else:
        steps = _at_once(weight, palette, node, zero, turned=turned)
    return [(node, merged([anchored, *steps]))]


def _is_conv(graph: GraphProto, node: NodeProto, weight: str) -> bool:
    """Whether a Conv of one group has this weight, and its bias, if any, is a constant."""
    if not applies(node, "Conv", weight):
        return False
    constants = {tensor.name for tensor in graph.initializer}
    return attributes_of(node).get("group", 1) == 1 and constants.issuperset(
        filter(None, node.input[2:])
    )


def _at_once(
    weight: str, palette: Palette, node: NodeProto, zero: str, *, turned: bool
) -> list[Encoding]:
    """Decode the weight and apply it."""
    if not turned:
        return [encode(weight, palette, zero=zero), Encoding((node,), ())]
    into = f"{weight}{TURNED}"
    copy = with_input(node, 1, into, node.output[0])
    copy.name = node.name
    used = Encoding((copy,), ())
    return [encode(weight, palette.transposed(), zero=zero, into=into), used]


def _in_parts(
    weight: str, palette: Palette, node: NodeProto, bounds: Bounds, zero: str
) -> list[Encoding]:
    """Decode and apply part by part, and put the results side by side."""
    steps, results = [], []
    for number, (start, stop) in enumerate(bounds):
        part = f"{PART}{number}"
        rows = Palette(palette.indices[start:stop], palette.lut, palette.axis)
        decoded = encode(weight, rows, zero=zero, into=f"{weight}{part}", part=part)
        results.append(f"{node.output[0]}{part}")
        steps += [decoded, applied(node, f"{weight}{part}", results[-1], (start, stop))]
    return [*steps, put_together(node, results)]


def _bounds(palette: Palette) -> Bounds:
    """First and last row, excluded, of each part; none where the weight is not split."""
    rows = palette.shape[0]
    plain = prod(palette.groups) == 1 and palette.scale is None
    parts = min(-(-palette.size // _LARGE), rows // _ROWS)
    if parts < 2 or not plain or (palette.cluster_dim > 1 and palette.axis == 0):
        return []
    step = -(-rows // (parts * _ROWS)) * _ROWS
    return [(start, min(start + step, rows)) for start in range(0, rows, step)]


def applied(node: NodeProto, weight: str, result: str, rows: tuple[int, int]) -> Encoding:
    """``node`` with the part ``weight``, and that of its bias, if it has one."""
    part = with_input(node, 1, weight, result)
    if node.op_type == "MatMul":
        turned = helper.make_node("Transpose", [weight], [f"{weight}{TURNED}"], perm=[1, 0])
        return Encoding((turned, with_input(part, 1, turned.output[0], result)), ())
    if len(node.input) < 3 or not node.input[2]:
        return Encoding((part,), ())
    bounds = {f"dkm:shape_{place}": np.array([place], np.int64) for place in rows}
    sliced = helper.make_node("Slice", [node.input[2], *bounds], [f"{result}.bias"])
    tensors = tuple(numpy_helper.from_array(value, name) for name, value in bounds.items())
    return Encoding((sliced, with_input(part, 2, sliced.output[0], result)), tensors)


def put_together(node: NodeProto, results: Sequence[str]) -> Encoding:
    """The results of the parts side by side, as ``node`` gives them."""
    axis = -1 if node.op_type == "MatMul" else 1  # a Gemm's result has two dimensions
    joined = helper.make_node("Concat", results, list(node.output), name=node.name, axis=axis)
    return Encoding((joined,), ())


def with_input(node: NodeProto, place: int, name: str, result: str) -> NodeProto:
    """A copy of a node, without its name, that reads ``name`` in one place and gives ``result``."""
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.name, copy.input[place], copy.output[0] = "", name, result
    return copy
