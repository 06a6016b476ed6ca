"""Which tensors of an ONNX model are weights, and why the others are not.

A tensor of rank 2 or more, an initializer or the value of a Constant node, of the main graph or of
a subgraph, is a weight if

- it is float16, bfloat16, float32 or float64, finite, and no input that a caller may replace;
- *every* use of it is as an operand of a linear operator (``Conv``, ``ConvTranspose``,
  ``DeformConv``, ``CausalConvWithState``, ``Gemm``, ``MatMul``, ``Einsum``, the matrices of
  ``LSTM``, ``GRU`` and ``RNN``, and ONNX Runtime's ``Attention``, ``EmbedLayerNormalization``,
  ``FusedConv``, ``FusedGemm`` and ``FusedMatMul``) or as the table of a
  ``Gather``, directly or through operators that only move or cast values, and through bodies of
  If, Loop and Scan that hand it on;
- its name is defined once in the model, so that it can be decoded in the main graph.

So what is added, multiplied or compared stays as it is: masks, anchor grids, sine tables, scales
and zero points of quantized weights, the regions and scales of Resize. So does a table that
constant indices read from, which is a lookup table already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from converters.onnx.graph.bodies import WITH_BODIES
from converters.onnx.graph.tensors import (
    GraphValues,
    TensorPlace,
    Use,
    array_of,
    graph_values,
    held_by_functions,
    op_name,
)

_FLOATS = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE)
_LINEAR = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "DeformConv": (1,),
    "CausalConvWithState": (1,),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "LSTM": (1, 2),
    "GRU": (1, 2),
    "RNN": (1, 2),
    "Gather": (0,),
    "com.microsoft::Attention": (1,),
    "com.microsoft::EmbedLayerNormalization": (2, 3, 4),
    "com.microsoft::FusedConv": (1,),
    "com.microsoft::FusedGemm": (0, 1),
    "com.microsoft::FusedMatMul": (0, 1),
}
_ALL_INPUTS = ("Einsum",)
# They move or cast the values of their first input; Concat, those of all.
_MOVING = {
    *("Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Cast"),
    *("Slice", "Split"),
}
_SHAPE_ONLY = ("Shape", "Size")
_QUANTISED = ("quantize", "qlinear", "integer", "nbits", "qgemm", "qattention", "qmoe")


@dataclass(frozen=True)
class FoundWeights:
    """The tensors of rank 2 or more of a model; each is in exactly one of the two.

    Attributes:
        tensors: weights by the name of their value.
        dense: reason of all others by name.
    """

    tensors: Mapping[str, TensorProto]
    dense: Mapping[str, str]


def find_weights(model: ModelProto) -> FoundWeights:
    """Sort the tensors of ``model``; see the module for the rule."""
    values = graph_values(model)
    tensors: dict[str, TensorProto] = {}
    dense: dict[str, str] = {}
    for held in values.held:
        if len(held.dims) < 2:
            continue
        reason = _not_a_weight(held, values)
        if held.tensor is not None and reason is None:
            tensors[held.name] = held.tensor
        elif reason:
            twice = values.definitions[held.name] > 1 and held.place
            dense[f"{held.name} ({held.place})" if twice else held.name] = reason
    for held in held_by_functions(model):
        if len(held.dims) >= 2:
            dense[f"{held.name} ({held.place})"] = (
                "in a function of the model; inline its functions (onnx.inliner) to palettize it"
            )
    return FoundWeights(tensors, dense)


def _not_a_weight(held: TensorPlace, values: GraphValues) -> str | None:
    """Why ``held`` is not a weight, or None if it is one."""
    if held.tensor is None:
        return "a sparse tensor"
    uses = list(_final_uses(held.name, values))
    if held.tensor.data_type not in _FLOATS:
        return _not_float(held.tensor, uses)
    if held.replaceable:
        return "an input too, so that a caller may replace it"
    if values.definitions[held.name] > 1:
        return "another part of the model has a value of the same name"
    if not uses:
        return "no operator uses its values"
    for use in uses:
        reason = _not_linear(use, held, values)
        if reason:
            return reason
    if not prod(held.dims):
        return "it has no elements"
    if not np.isfinite(array_of(held.name, held.tensor)).all():
        return "it holds NaN or infinity"
    return None


def _not_float(tensor: TensorProto, uses: list[Use]) -> str:
    known = tensor.data_type in TensorProto.DataType.values()
    kind = TensorProto.DataType.Name(tensor.data_type).lower() if known else "of an unknown type"
    ops = [use.op for use in uses if any(part in use.op.lower() for part in _QUANTISED)]
    if ops:
        return f"{kind}, an input of {ops[0]}: quantized already"
    return f"{kind}: palettes are of floating numbers"


def _not_linear(use: Use, held: TensorPlace, values: GraphValues) -> str | None:
    if use.node is None:
        return "an output of the model or of a subgraph"
    if use.op not in _ALL_INPUTS and use.position not in _LINEAR.get(use.op, ()):
        return f"input {use.position} of {use.op}: not the weight of a linear operator"
    if use.op == "Gather":
        indices = [values.by_name[n] for n in use.node.input[1:2] if n in values.by_name]
        if sum(prod(each.dims) for each in indices) > held.dims[0]:
            return "a lookup table already: constant indices read from it"
    return None


def _moves(node: NodeProto, position: int, values: GraphValues) -> bool:
    """Whether ``node`` only moves or casts the values at ``position``, and mixes in no others."""
    op = op_name(node)
    if op == "Concat":  # exporters sort the gates of an LSTM so
        return all(_constant(name, values) for name in node.input)
    return op in _MOVING and position == 0


def _constant(name: str, values: GraphValues) -> bool:
    """Whether a value is made of nothing but tensors of the model, moved or cast."""
    seen, waiting = {name}, [name]
    while waiting:
        name = waiting.pop()
        if name in values.by_name and not values.by_name[name].replaceable:
            continue
        node = values.producers.get(name)
        if node is None or op_name(node) not in (*_MOVING, "Concat"):
            return False
        sources = node.input if op_name(node) == "Concat" else node.input[:1]
        waiting += [source for source in sources if source not in seen]
        seen.update(sources)
    return True


def _final_uses(name: str, values: GraphValues) -> Iterator[Use]:
    """Uses of the values of ``name``, looking through operators that only move or cast them."""
    seen, waiting = {name}, [name]
    while waiting:
        name = waiting.pop()
        onward = list(values.handed.get(name, ()))
        hidden = any(values.definitions[other] > 1 for other in onward)
        if hidden:  # by a value of another body that has the same name
            yield Use(None)
        for use in values.uses.get(name, ()):
            if use.node is not None and _moves(use.node, use.position, values):
                onward += use.node.output
            elif use.op not in (*_SHAPE_ONLY, *(WITH_BODIES if onward else ())):
                yield use
        fresh = [output for output in onward if output not in seen]
        seen.update(fresh)
        waiting += fresh
