"""Matrix products with 8-bit weights: ``com.microsoft.MatMulNBits`` over codes from a palette.

The file holds n bits a weight and a LUT as any other. The graph turns the LUT into 8-bit codes,
and the codes, not floats, are what a runtime decodes at load and keeps. The kernel also rounds
the activations to 8 bits, block by block (its accuracy level 4; the exact levels are 30 times
slower), which costs about 0.6 % of the output's norm a product.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converters.onnx.decoding.builder import Builder, make_node
from converters.onnx.decoding.encode import encode
from converters.onnx.decoding.encoding import Encoding, Replacement, finish, merge
from converters.onnx.graph.consumers import (
    applies,
    attribute,
    name_of,
    used_elsewhere,
    users_of,
)
from dkm_deploy.clustering.quantizers.int8_lut import on_grid, step_of
from dkm_deploy.errors import DkmError
from dkm_deploy.palette import Palette

DOMAIN = "com.microsoft"
ZERO = 128  # the code of 0
_BLOCKS = (128, 64, 32, 16)  # weights that share a scale, along the inner dimension
_ACTIVATIONS_IN_8_BITS = 4


def products(graph: ir.Graph, weight: ir.Value, palette: Palette) -> list[Replacement]:
    """The products ``x @ weight.T`` that use a weight, if nothing else does and a kernel fits.

    They are Gemm nodes, or MatMul nodes behind a Transpose of the weight. A per-channel scale has
    no place in the codes of a LUT, so such a weight is decoded for ordinary products.

    Raises:
        DkmError: a kernel fits, but the LUT does not lie on an 8-bit grid.
    """
    if palette.scale is not None:
        return []
    if len(palette.shape) != 2 or palette.cluster_dim > 1 or _block(palette.shape[1]) is None:
        return []
    return [
        Replacement(node.outputs[0], node, encode_product(name_of(weight), palette, node))
        for node in _product_users(graph, weight)
    ]


def _product_users(graph: ir.Graph, weight: ir.Value) -> list[ir.Node]:
    if used_elsewhere(graph, weight):
        return []
    found: list[ir.Node] = []
    for node in users_of(graph, weight):
        if is_product(node, weight):
            found.append(node)
        elif node.op_type == "Transpose" and len(node.outputs) == 1:
            turned = node.outputs[0]
            behind = users_of(graph, turned)
            alone = bool(behind) and not used_elsewhere(graph, turned)
            if not alone or not all(applies(n, "MatMul", turned) for n in behind):
                return []
            found += behind
        else:
            return []
    return found


def encode_product(weight: str, palette: Palette, node: ir.Node) -> Encoding:
    """One product with the codes of ``palette`` in place of ``node``.

    Raises:
        DkmError: the LUT does not lie on an 8-bit grid.
    """
    if not on_grid(palette.lut):
        raise DkmError(
            f"{weight}: decode='int8' needs LUTs on an 8-bit grid; "
            "convert dkm.quantize_luts(frozen)"
        )
    rows, columns = palette.shape
    block = _block(columns) or columns
    blocks = columns // block
    graph = Builder(weight)
    step = graph.tensor(f"{weight}.step", np.array([step_of(palette.lut)]))
    zero = graph.tensor("dkm:zero_code", np.array(ZERO, np.float32))
    lut, name = graph.tensor(f"{weight}.lut", palette.lut), f"{weight}.lut_codes"
    codes = graph.node("Div", lut, step, into=f"{name}:0")
    codes = graph.node("Round", codes, into=f"{name}:1")
    codes = graph.node("Add", codes, zero, into=f"{name}:2")
    codes = graph.node("Cast", codes, into=name, to=ir.DataType.UINT8)
    shape = graph.int64([rows * blocks])
    scales = graph.node("Expand", step, shape, into=f"{weight}.scales")
    decoded = encode(
        weight, palette, lut=codes, into=f"{weight}.codes", shape=(rows, blocks, block)
    )
    bias = node.inputs[2:3]
    product = make_node(
        "MatMulNBits",
        [node.inputs[0], decoded.result, scales, *([None, None, *bias] if any(bias) else [])],
        [name_of(node.outputs[0])],
        name=node.name or "",
        domain=DOMAIN,
        K=columns,
        N=rows,
        bits=8,
        block_size=block,
        accuracy_level=_ACTIVATIONS_IN_8_BITS,
    )
    return merge([finish(graph), decoded, Encoding((product,))])


def _block(columns: int) -> int | None:
    return next((size for size in _BLOCKS if columns % size == 0), None)


def is_product(node: ir.Node, weight: ir.Value) -> bool:
    """Whether a Gemm is ``x @ weight.T``, plus a bias of one dimension if any."""
    if not applies(node, "Gemm", weight):
        return False
    plain = attribute(node, "alpha", 1) == attribute(node, "beta", 1) == 1
    turned = attribute(node, "transB", 0) and not attribute(node, "transA", 0)
    return bool(plain and turned) and all(_is_row(value) for value in node.inputs[2:])


def _is_row(value: ir.Value | None) -> bool:
    """Whether a bias is a constant of one dimension."""
    tensor = value.const_value if value is not None and value.is_initializer() else None
    return tensor is not None and tensor.shape.rank() == 1
