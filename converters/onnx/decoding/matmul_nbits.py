"""Matrix products with 8-bit weights: ``com.microsoft.MatMulNBits`` over codes from a palette.

The file holds n bits a weight and a LUT as any other. The graph turns the LUT into 8-bit codes,
and the codes, not floats, are what a runtime decodes at load and keeps. The kernel also rounds
the activations to 8 bits, block by block (its accuracy level 4; the exact levels are 30 times
slower), which costs about 0.6 % of the output's norm a product.
"""

from __future__ import annotations

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from converters.onnx.decoding.encode import Encoding, encode, merged
from converters.onnx.graph.consumers import applies, attributes_of, used_elsewhere, users_of
from dkm_deploy.clustering.quantizers.int8_lut import on_grid, step_of
from dkm_deploy.errors import DkmError
from dkm_deploy.palette import Palette

DOMAIN = "com.microsoft"
ZERO = 128  # the code of 0
_BLOCKS = (128, 64, 32, 16)  # weights that share a scale, along the inner dimension
_ACTIVATIONS_IN_8_BITS = 4


def product_users(graph: GraphProto, weight: str, palette: Palette) -> list[NodeProto]:
    """The products ``x @ weight.T`` that use a weight, if nothing else does and a kernel fits.

    They are Gemm nodes, or MatMul nodes behind a Transpose of the weight. A per-channel scale has
    no place in the codes of a LUT, so such a weight is decoded for ordinary products.
    """
    if palette.scale is not None:
        return []
    if len(palette.shape) != 2 or palette.cluster_dim > 1 or _block(palette.shape[1]) is None:
        return []
    if used_elsewhere(graph, weight):
        return []
    found: list[NodeProto] = []
    for node in users_of(graph, weight):
        if is_product(graph, node, weight):
            found.append(node)
        elif node.op_type == "Transpose" and len(node.output) == 1:
            turned = node.output[0]
            behind = users_of(graph, turned)
            alone = bool(behind) and not used_elsewhere(graph, turned)
            if not alone or not all(applies(n, "MatMul", turned) for n in behind):
                return []
            found += behind
        else:
            return []
    return found


def encode_product(weight: str, palette: Palette, node: NodeProto) -> Encoding:
    """One product with the codes of ``palette`` in place of ``node``.

    Raises:
        DkmError: the LUT does not lie on an 8-bit grid.
    """
    if not on_grid(palette.lut):
        raise DkmError(
            f"{weight}: decode='int8' needs LUTs on an 8-bit grid; convert dkm.round_luts(frozen)"
        )
    rows, columns = palette.shape
    block = _block(columns) or columns
    blocks = columns // block
    step, codes, scales = f"{weight}.step", f"{weight}.lut_codes", f"{weight}.scales"
    constants = {
        step: np.array([step_of(palette.lut)]),
        "dkm:zero_code": np.array(ZERO, np.float32),
        f"dkm:shape_{rows * blocks}": np.array([rows * blocks], np.int64),
    }
    lut_codes = [
        helper.make_node("Div", [f"{weight}.lut", step], [f"{codes}:0"]),
        helper.make_node("Round", [f"{codes}:0"], [f"{codes}:1"]),
        helper.make_node("Add", [f"{codes}:1", "dkm:zero_code"], [f"{codes}:2"]),
        helper.make_node("Cast", [f"{codes}:2"], [codes], to=TensorProto.UINT8),
        helper.make_node("Expand", [step, f"dkm:shape_{rows * blocks}"], [scales]),
    ]
    decoded = encode(
        weight, palette, lut=codes, into=f"{weight}.codes", shape=(rows, blocks, block)
    )
    bias = node.input[2] if len(node.input) > 2 else ""
    product = helper.make_node(
        "MatMulNBits",
        [node.input[0], f"{weight}.codes", scales, *(["", "", bias] if bias else [])],
        [node.output[0]],
        name=node.name,
        domain=DOMAIN,
        K=columns,
        N=rows,
        bits=8,
        block_size=block,
        accuracy_level=_ACTIVATIONS_IN_8_BITS,
    )
    tensors = tuple(numpy_helper.from_array(value, name) for name, value in constants.items())
    return merged([Encoding(tuple(lut_codes), tensors), decoded, Encoding((product,), ())])


def _block(columns: int) -> int | None:
    return next((size for size in _BLOCKS if columns % size == 0), None)


def is_product(graph: GraphProto, node: NodeProto, weight: str) -> bool:
    """Whether a Gemm is ``x @ weight.T``, plus a bias of one dimension if any."""
    if not applies(node, "Gemm", weight):
        return False
    attributes = attributes_of(node)
    plain = attributes.get("alpha", 1) == attributes.get("beta", 1) == 1
    bias = [t for t in graph.initializer if t.name in node.input[2:]]
    fits = len(node.input) < 3 or (len(bias) == 1 and len(bias[0].dims) == 1)
    return bool(plain and fits and attributes.get("transB") and not attributes.get("transA"))
