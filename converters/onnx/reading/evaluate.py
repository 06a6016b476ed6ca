"""Run the part of a graph that decodes a palette, in numpy.

Only the integer and moving operators that decodes are made of, in exact arithmetic and with a
bound on memory: the file may be anybody's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from dkm_deploy.errors import DkmError, reason_of

Array = NDArray[Any]
_Run = Callable[..., Array]
_Places = Array | list[int]

_TOGETHER = 4  # times what one value may have: all values, views of others among them


def evaluate(
    nodes: Iterable[NodeProto], known: Mapping[str, Array], limit: int
) -> dict[str, Array]:
    """The values of all nodes.

    Args:
        nodes: in an order that runs.
        known: initializers, and values to take in place of what nodes give.
        limit: elements that a value may have; all together may have a few times as many.

    Raises:
        DkmError: an operator is none of a decode's, or its inputs do not fit or are too large.
    """
    values, made = dict(known), 0
    for node in nodes:
        # A damaged graph can fail in any way that protobuf and numpy can.
        try:
            name = node.output[0]
            if name in known:
                continue
            run = _OPERATORS.get(node.op_type)
            if run is None or node.domain:
                raise ValueError("palettes are not decoded with this operator")
            inputs = [values[source] for source in node.input]
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            # A LUT value times a small scale may be subnormal, or zero, as in any runtime.
            with np.errstate(all="raise", under="ignore"):
                values[name] = run(limit, *inputs, **attributes)
            made += values[name].size
            _check_count(made, _TOGETHER * limit)
        except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:
            what = f"{', '.join(node.output)!r} ({node.op_type!r})"
            raise DkmError(f"{what} cannot be run: {reason_of(error)}") from error
    return values


def _check_count(count: int, limit: int) -> None:
    if count > limit:
        raise ValueError(f"{count} elements are more than a file of this size can hold")


def _cast(_: int, data: Array, to: int = 0) -> Array:
    if to in (TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8):
        return data.astype(helper.tensor_dtype_to_np_dtype(to))
    wanted = helper.tensor_dtype_to_np_dtype(to)
    if data.dtype.kind == "f" and np.can_cast(data.dtype, wanted, "safe"):
        return data.astype(wanted)
    raise TypeError(f"a cast from {data.dtype} to {wanted}, which loses precision")


def _reshape(_: int, data: Array, shape: Array, allowzero: int = 0) -> Array:
    if allowzero:
        raise ValueError("Reshape with allowzero is not supported")
    sizes = [data.shape[i] if size == 0 else int(size) for i, size in enumerate(shape)]
    return data.reshape(sizes)


def _gather(limit: int, data: Array, indices: Array, axis: int = 0) -> Array:
    _check_count(data.size // max(data.shape[axis], 1) * indices.size, limit)
    return data.take(indices, axis=axis)


def _concat(limit: int, *parts: Array, axis: int) -> Array:
    _check_count(sum(part.size for part in parts), limit)
    return np.concatenate(parts, axis)


def _expand(limit: int, data: Array, shape: Array) -> Array:
    wanted = np.broadcast_shapes(data.shape, tuple(int(size) for size in shape))
    _check_count(prod(wanted), limit)
    return np.broadcast_to(data, wanted)


def _gather_elements(limit: int, data: Array, indices: Array, axis: int = 0) -> Array:
    others = [1 if dim == axis % data.ndim else size for dim, size in enumerate(data.shape)]
    _check_count(prod(np.broadcast_shapes(indices.shape, tuple(others))), limit)
    return np.take_along_axis(data, indices.astype(np.intp, copy=False), axis)


def _range(limit: int, start: Array, stop: Array, step: Array) -> Array:
    _check_count((int(stop) - int(start)) // int(step), limit)
    return np.arange(int(start), int(stop), int(step), dtype=start.dtype)


def _slice(
    _: int, data: Array, starts: _Places, ends: _Places, axes: list[int] | None = None
) -> Array:
    """Of the first dimensions, by inputs or, before opset 10, by attributes."""
    if axes not in (None, [*range(len(starts))]):
        raise ValueError(f"Slice along axes {axes} is not supported")
    return data[tuple(slice(int(a), int(b)) for a, b in zip(starts, ends, strict=True))]


def _transpose(_: int, data: Array, perm: list[int] | None = None) -> Array:
    return data.transpose(perm)


def _binary(
    function: Callable[[Array, Array], Array], limit: int, left: Array, right: Array
) -> Array:
    _check_count(prod(np.broadcast_shapes(left.shape, right.shape)), limit)
    return function(left, right)


def _divide(left: Array, right: Array) -> Array:
    quotient: Array = left / right if left.dtype.kind == "f" else left // right
    return quotient


def _round(_: int, data: Array) -> Array:
    rounded: Array = np.rint(data)
    return rounded


def _identity(_: int, data: Array) -> Array:
    return data


def _size(_: int, data: Array) -> Array:
    return np.array(data.size, np.int64)


_OPERATORS: dict[str, _Run] = {
    "Add": partial(_binary, np.add),
    "Cast": _cast,
    "Concat": _concat,
    "Div": partial(_binary, _divide),
    "Expand": _expand,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "Identity": _identity,
    "Min": partial(_binary, np.minimum),
    "Mod": partial(_binary, np.mod),
    "Mul": partial(_binary, np.multiply),
    "Range": _range,
    "Reshape": _reshape,
    "Round": _round,
    "Size": _size,
    "Slice": _slice,
    "Sub": partial(_binary, np.subtract),
    "Transpose": _transpose,
}
