"""Lower products, pools, sums of patches and scattered values that coremltools lacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from coremltools.converters.mil import Builder
from coremltools.converters.mil.frontend.torch.ops import _get_inputs, _get_kwinputs
from coremltools.converters.mil.mil import types

Lowering = Callable[[Any, Any], None]

_MODES = {"sum": "add", "prod": "mul", "amax": "max", "amin": "min"}
_NEUTRAL = {"sum": 0, "prod": 1, "amax": -np.inf, "amin": np.inf}


def _product(context: Any, node: Any) -> None:
    """Lower ``prod`` of all values."""
    x = _get_inputs(context, node, min_expected=1)[0]
    context.add(Builder.reduce_prod(x=_numbers(x)), torch_name=node.name)


def _product_along(context: Any, node: Any) -> None:
    """Lower ``prod`` along a dimension."""
    x, dim, *rest = _get_inputs(context, node, min_expected=2)
    keep = bool(rest[0].val) if rest else False
    found = Builder.reduce_prod(x=_numbers(x), axes=[dim.val], keep_dims=keep)
    context.add(found, torch_name=node.name)


def _adaptive_max(context: Any, node: Any) -> None:
    """Lower ``adaptive_max_pool3d`` a side at a time; who reads the places is refused."""
    x, size = _get_inputs(context, node, expected=2)
    lengths = np.ravel([part.val for part in size] if isinstance(size, list) else size.val)
    for axis, after in enumerate(lengths, start=x.rank - len(lengths)):
        before = x.shape[axis]
        windows = [(i * before // after, -(-(i + 1) * before // after)) for i in range(after)]
        parts = [_window_max(x, axis, *window) for window in windows]
        x = parts[0] if len(parts) == 1 else Builder.concat(values=parts, axis=axis)
    context.add(x, torch_name=node.name)


def _window_max(x: Any, axis: int, begin: int, end: int) -> Any:
    others = [dim != axis for dim in range(x.rank)]
    begins, ends = ([0 if other else place for other in others] for place in (begin, end))
    window = Builder.slice_by_index(x=x, begin=begins, end=ends, begin_mask=others, end_mask=others)
    return Builder.reduce_max(x=window, axes=[axis], keep_dims=True)


def _scatter_reduce(context: Any, node: Any) -> None:
    """Lower ``scatter_reduce``, a mean as a sum over a count."""
    x, dim, indices, source, reduce = _get_inputs(context, node, min_expected=5)[:5]
    include = _get_kwinputs(context, node, "include_self", default=[None])[0]
    included = include is None or bool(include.val)
    kind = reduce.val if hasattr(reduce, "val") else reduce
    axis, mode = dim.val, "sum" if kind == "mean" else kind

    def scatter(data: Any, updates: Any, how: str) -> Any:
        return Builder.scatter_along_axis(
            data=data, indices=indices, updates=updates, axis=axis, mode=how
        )

    if not included:
        neutral = _like(indices, _neutral(mode, x.dtype), x.dtype)
        start = scatter(x, neutral, "update")
    else:
        start = x
    found = scatter(start, source, _MODES[mode])
    if kind == "mean":
        one = _like(indices, 1, x.dtype)
        count = scatter(Builder.fill_like(ref_tensor=x, value=_of(1, x.dtype)), one, "add")
        if not included:
            less = scatter(Builder.fill_like(ref_tensor=x, value=_of(0, x.dtype)), one, "add")
            count = Builder.maximum(x=less, y=_of(1, x.dtype))
        found = Builder.real_div(x=found, y=count)
    context.add(found, torch_name=node.name)


def overlapping_fold(context: Any, node: Any) -> bool:
    """Lower a ``col2im`` of patches that overlap, are padded or apart; say whether it is one.

    Each patch adds its values to the image: a transposed convolution by kernels of a single one.
    """
    x, *options = _get_inputs(context, node, expected=6)
    size, kernel, dilation, padding, stride = (_pair(option) for option in options)
    whole = all(n % k == 0 for n, k in zip(size, kernel, strict=True))
    known = all(s >= k for s, k in zip(stride, kernel, strict=True))
    if known and whole and dilation == (1, 1) and padding == (0, 0):
        return False
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    counts = [
        (n + 2 * p - r) // s + 1 for n, p, r, s in zip(size, padding, reach, stride, strict=True)
    ]
    places = kernel[0] * kernel[1]
    channels = x.shape[-2] // places
    single = np.eye(places, dtype=np.float32).reshape(places, 1, *kernel)
    batch = -1 if x.rank == 3 else 1
    image = Builder.conv_transpose(
        x=Builder.reshape(x=x, shape=[batch, x.shape[-2], *counts]),
        weight=np.tile(single, (channels, 1, 1, 1)),
        strides=list(stride),
        dilations=list(dilation),
        pad_type="valid",
        groups=channels,
    )
    context.add(_cut(image, padding, size, x.rank == 2), torch_name=node.name)
    return True


def _cut(image: Any, padding: tuple[int, ...], size: tuple[int, ...], squeeze: bool) -> Any:
    """The image without its padding, and with zeros where no patch reaches."""
    lacking = [
        max(0, p + n - have) for p, n, have in zip(padding, size, image.shape[2:], strict=True)
    ]
    if any(lacking):
        image = Builder.pad(
            x=image, pad=[0, 0, 0, 0, 0, lacking[0], 0, lacking[1]], mode="constant"
        )
    begin = [0, 0, *padding]
    end = [0, 0, *(p + n for p, n in zip(padding, size, strict=True))]
    mask = [True, True, False, False]
    image = Builder.slice_by_index(x=image, begin=begin, end=end, begin_mask=mask, end_mask=mask)
    return Builder.squeeze(x=image, axes=[0]) if squeeze else image


def _pair(option: Any) -> tuple[int, ...]:
    values = [part.val for part in option] if isinstance(option, (list, tuple)) else option.val
    pair = [int(value) for value in np.ravel(values)]
    return tuple(pair * 2 if len(pair) == 1 else pair)


def _numbers(x: Any) -> Any:
    """Truth values as integers."""
    return Builder.cast(x=x, dtype="int32") if types.is_bool(x.dtype) else x


def _like(indices: Any, value: float, dtype: Any) -> Any:
    shape = Builder.shape(x=indices)
    return Builder.fill(shape=shape, value=_of(value, dtype))


def _of(value: float, dtype: Any) -> Any:
    return types.nptype_from_builtin(dtype)(value)


def _neutral(kind: str, dtype: Any) -> float:
    """What changes no result of a reduction."""
    value = float(_NEUTRAL[kind])
    if types.is_float(dtype) or np.isfinite(value):
        return value
    limits = np.iinfo(types.nptype_from_builtin(dtype))
    return float(limits.min if value < 0 else limits.max)


REDUCING: Mapping[str, Lowering] = {
    "prod": _product,
    "prod.dim_int": _product_along,
    "adaptive_max_pool3d": _adaptive_max,
    "scatter_reduce.two": _scatter_reduce,
}
