"""Which float32 tensors of a model can be stored as float16, and the Cast that brings them back.

Compute stays float32: a runtime casts each stored tensor once when it loads the file. A tensor is
stored as float16 if that makes the file smaller, if every operator that takes it is known to bear
the rounding, and if rounding is all that its values lose:

- Weights, tables, LUTs and biases are summed or looked up with others: each value keeps its 11
  significant bits, but values far below the tensor's root mean square may have the error of it.
- Factors (scales and variances of normalisations) keep the 11 bits of every value.
- Whole numbers (positions, counts) stay whole: either all survive unchanged, or none is stored so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from converters.onnx.decoding.builder import make_node

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

# The Cast node and the longer name take about 100 bytes; 2 bytes a value are saved.
_SMALLEST = 64
HALF = ".float16"
"""Ending of the name of a tensor that is stored as float16 and cast to the one called without."""
_ROUNDING = 2.0**-11
_BLOCK = 2**20

# Inputs of operators that are known to bear the rounding, by what they do with it.
_Inputs = dict[str, tuple[int, ...]]
_WEIGHTS: _Inputs = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "GRU": (1, 2),
    "Gather": (0,),
    "Gemm": (0, 1),
    "LSTM": (1, 2),
    "MatMul": (0, 1),
    "RNN": (1, 2),
}
_BIASES: _Inputs = {
    "Add": (0, 1),
    "BatchNormalization": (2, 3),
    "Conv": (2,),
    "ConvTranspose": (2,),
    "GRU": (3,),
    "Gemm": (2,),
    "GroupNormalization": (2,),
    "InstanceNormalization": (2,),
    "LSTM": (3,),
    "LayerNormalization": (2,),
    "RNN": (3,),
}
_FACTORS: _Inputs = {
    "BatchNormalization": (1, 4),
    "GroupNormalization": (1,),
    "InstanceNormalization": (1,),
    "LayerNormalization": (1,),
    "PRelu": (1,),
}
_MOVING = ("Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


def narrow_weights(graph: ir.Graph) -> tuple[list[str], list[str]]:
    """Give float32 initializers of ``graph`` float16 values, where these survive.

    Their names and users are left as they are, for :func:`cast_weights`.

    Returns:
        The names of the changed initializers; and, a line each, why others that would have made
        the file smaller stay float32.
    """
    changed: list[str] = []
    notes: list[str] = []
    for name, value in graph.initializers.items():
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.size < _SMALLEST:
            continue
        reason = _reason(tensor, list(_uses(value)))
        if reason:
            notes.append(f"{name} stays float32: {reason}")
            continue
        value.const_value = _round_to_float16(tensor)
        changed.append(name)
    return changed, notes


def cast_weights(graph: ir.Graph, names: Iterable[str]) -> None:
    """Store initializers of float16 values under names of their own, and cast them to float32.

    The cast value has the initializer's name, so that nothing else in ``graph`` changes.
    """
    first = graph[0]
    for name in names:
        value = graph.initializers[name]
        value.name = name + HALF
        graph.insert_before(first, _cast_for_users(value, name))


def narrow_luts(graph: ir.Graph, names: Iterable[str]) -> list[str]:
    """Store LUTs as float16, where their values survive, and cast them to float32.

    They keep their names, by which they are read back, and the cast values get others.

    Returns:
        As :func:`narrow_weights`, the reasons why some stay float32.
    """
    notes: list[str] = []
    first = graph[0]
    for name in names:
        value = graph.initializers[name]
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.size < _SMALLEST:
            continue
        # Products in float32 of what is stored as float16 would be no palette's weights.
        scaled = f"{name.removesuffix('.lut')}.scale" in graph.initializers
        reason = "it has a per-channel scale" if scaled else _loss(tensor.numpy(), each=False)
        if reason:
            notes.append(f"{name} stays float32: {reason}")
            continue
        value.const_value = _round_to_float16(tensor)
        graph.insert_before(first, _cast_for_users(value, f"{name}.float32"))
    return notes


def _cast_for_users(stored: ir.Value, name: str) -> ir.Node:
    """A Cast to float32, called ``name``, which all that reads ``stored`` reads instead."""
    users = stored.uses()
    cast = make_node("Cast", [stored], [name], to=ir.DataType.FLOAT)
    for node, place in users:
        node.replace_input_with(place, cast.outputs[0])
    return cast


def _reason(tensor: ir.TensorProtocol, uses: list[tuple[str, int]]) -> str | None:
    """Why a dense tensor stays float32, or None."""
    # A single row as a MatMul's operand is not summed: frequencies times positions, say.
    single = tensor.size == max(tensor.shape.numpy())
    bearing = (_BIASES, _FACTORS) if single else (_WEIGHTS, _BIASES, _FACTORS)
    for op, place in uses:
        if not any(_has(inputs, op, place) for inputs in bearing):
            return f"{op} may need its precision"
    return _loss(tensor.numpy(), each=any(_has(_FACTORS, op, place) for op, place in uses))


def _uses(value: ir.Value) -> Iterator[tuple[str, int]]:
    """Operators that take ``value``, moved or not, and as which input."""
    for node, place in value.uses():
        if node.op_type in _MOVING and place == 0:
            yield from _uses(node.outputs[0])
        else:
            yield node.op_type, place


def _has(inputs: _Inputs, op: str, place: int) -> bool:
    return place in inputs.get(op, ())


def _loss(array: NDArray[np.float32], *, each: bool) -> str | None:
    """What float16 would take from the values beyond its rounding, or None.

    Args:
        array: of any shape.
        each: whether every value counts by itself, however small beside the others.
    """
    whole, changed, squares = True, False, 0.0
    for values in _blocks(array):
        if not np.isfinite(values).all():
            return "it holds NaN or infinity"
        largest = float(np.abs(values).max())
        if largest > float(np.finfo(np.float16).max):
            return f"{largest:.4g} is larger than float16 holds"
        whole = whole and bool((values == np.rint(values)).all())
        changed = changed or bool((values != values.astype(np.float16)).any())
        squares += float(np.square(values, dtype=np.float64).sum())
    if whole:
        return "its whole numbers need more than 11 bits" if changed else None
    floor = 0.0 if each else (squares / array.size) ** 0.5
    for values in _blocks(array):
        error = np.abs(values - values.astype(np.float16).astype(np.float32))
        lost = error > _ROUNDING * np.maximum(np.abs(values), np.float32(floor))
        if lost.any():
            return f"{values[lost][0]:.4g} is too small for float16"
    return None


def _blocks(array: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """The values in pieces: a tensor may be as large as half the memory."""
    flat = array.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        yield flat[start : start + _BLOCK]


def _round_to_float16(tensor: ir.TensorProtocol) -> ir.LazyTensor:
    """The float16 tensor, made when it is written."""

    def make() -> Any:
        return ir.Tensor(tensor.numpy().astype(np.float16))

    shape = ir.Shape(tensor.shape.numpy())
    return ir.LazyTensor(make, ir.DataType.FLOAT16, shape, name=tensor.name)
