"""Make a translated graph smaller by rewrites that change no value, whatever the inputs.

The exporter's own optimiser is left out: it takes numbers below 1e-8 for zero and numbers near one
for one, merges casts, bounds and additions that are not the same for every input, and folds
BatchNorms into dense weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx_ir as ir
from onnx_ir.passes import common as passes
from onnxscript.optimizer import fold_constants_ir
from onnxscript.rewriter import RewritePass, RewriteRule
from onnxscript.rewriter.rules.common import (
    collapse_slice2_rule,
    collapse_slice_rule,
    dropout_inference_rule,
    flatten_to_reshape_rule,
    fuse_pad_into_conv_rule,
    materialize_reshape_shape_rule,
    no_op_cast_rule,
    no_op_expand_rule,
    no_op_transpose_rule,
    reshape_reshape_rule,
    squeeze_reshape_1d_rule,
    transpose_transpose_rule,
    unsqueeze_unsqueeze_rule,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_WITH_BIAS = 3  # inputs of a convolution
_ROUNDS = 2  # what one round leaves may give the next something to do


def _is_one(_context: Any, one: ir.Value, **_: Any) -> bool:
    """Whether a factor is one to the last bit, and a scalar, which changes no shape."""
    factor = one.const_value
    return factor is not None and factor.shape.rank() == 0 and bool(factor.numpy() == 1)


_TIMES_ONE = RewriteRule(
    lambda op, x, one: op.Mul(x, one), lambda op, x, **_: op.Identity(x), _is_one
)

# These look at shapes, axes and types alone. Flattening comes before the merging of reshapes.
_RULES: Sequence[RewriteRule] = (
    dropout_inference_rule,
    collapse_slice_rule,
    collapse_slice2_rule,
    materialize_reshape_shape_rule,
    no_op_cast_rule,
    no_op_expand_rule,
    flatten_to_reshape_rule,
    reshape_reshape_rule,
    no_op_transpose_rule,
    transpose_transpose_rule,
    unsqueeze_unsqueeze_rule,
    squeeze_reshape_1d_rule,
    fuse_pad_into_conv_rule,  # of zeros only
    *_TIMES_ONE.commute(),
)

# Operators that may run now, as NumPy and ONNX Runtime give the same bits or differ in the last:
# those that move values, those on truths and those that work on one value at a time.
_MOVING = {
    *("Cast", "CastLike", "Concat", "Expand", "Flatten", "Gather", "GatherND", "Identity", "Range"),
    *("Reshape", "Shape", "Size", "Slice", "Squeeze", "Transpose", "Trilu", "Unsqueeze", "Where"),
}
_TRUTHS = {"And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "Or", "Xor"}
_BY_VALUE = {
    *("Abs", "Add", "Ceil", "Cos", "Div", "Exp", "Floor", "Log", "Max", "Min", "Mul", "Neg", "Pow"),
    *("Reciprocal", "Sin", "Sqrt", "Sub"),
}
# Of these, on whole numbers alone: sums of others depend on their order.
_WHOLE = {"CumSum", "Mod", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum"}


def simplify(model: ir.Model) -> None:
    """Fold, merge and remove what can be without a change of any value, in place."""
    passes.InlinePass()(model)
    own = set(model.graph.initializers)  # the model's parameters and buffers
    for _ in range(_ROUNDS):
        fold_constants_ir(model, onnx_shape_inference=True, should_fold=_may_fold)
        RewritePass(_RULES)(model)
        _drop_added_biases(model.graph, own)
        passes.RemoveUnusedNodesPass()(model)
    for one in (
        passes.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        passes.RemoveUnusedOpsetsPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.LiftSubgraphInitializersToMainGraphPass(),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.NameFixPass(),
    ):
        one(model)


def _may_fold(node: ir.Node) -> bool | None:
    """False for a node that must stay; None leaves it to the size of what it takes and gives."""
    if node.op_type in _MOVING | _TRUTHS | _BY_VALUE:
        return None
    return None if node.op_type in _WHOLE and _is_whole(node) else False


def _drop_added_biases(graph: ir.Graph, own: set[str]) -> None:
    """Take off the zeros that the exporter adds as the bias of a convolution that has none."""
    for node in graph.all_nodes():
        if node.op_type not in ("Conv", "ConvTranspose") or len(node.inputs) < _WITH_BIAS:
            continue
        bias = node.inputs[2]
        if bias is None or bias.const_value is None or bias.name in own:
            continue
        if not bias.const_value.numpy().any():
            node.resize_inputs(2)


def _is_whole(node: ir.Node) -> bool:
    return all(
        value is None or (value.dtype is not None and value.dtype.is_integer())
        for value in node.inputs
    )
