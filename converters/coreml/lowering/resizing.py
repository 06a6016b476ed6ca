"""Lower resizing that coremltools lacks: products with constant weights, or constant places."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from coremltools.converters.mil import Builder
from coremltools.converters.mil.frontend.torch.ops import _get_inputs
from coremltools.converters.mil.mil.types.symbolic import is_symbolic
from numpy.typing import NDArray

from dkm_deploy.conversion.failed_operation import layer_of
from dkm_deploy.errors import DkmError

_aten = torch.ops.aten
_WHOLE = 0.001  # what coremltools takes for rounding

Lowering = Callable[[Any, Any], None]


def _weighted(context: Any, node: Any, resize: Any) -> None:
    """Lower a resizing that weighs neighbours to a product with constant weights along each side.

    Args:
        context: of coremltools.
        node: a call of (x, size, align_corners, factors), its sizes known at conversion.
        resize: an ATen call of images whose weights are those along each side.
    """
    x, _, align_corners, *scales = _get_inputs(context, node, min_expected=3)
    sizes = _sizes(x, node, x.rank - 2)
    factors = _factors(scales, len(sizes))
    weights = [
        _resize_weights(resize, *size, bool(align_corners.val), factor)
        for size, factor in zip(sizes, factors, strict=True)
    ]
    context.add(_product_along_sides(x, weights), torch_name=node.name)


def refused_linear(context: Any, node: Any) -> bool:
    """Lower a linear resizing by a factor that gives no whole length, which coremltools refuses.

    Says whether it was such one.
    """
    x, _, align_corners, *scales = _get_inputs(context, node, min_expected=3)
    factors = _factors(scales, x.rank - 2)
    if align_corners.val or not any(map(_is_broken, x.shape[2:], factors)):
        return False
    _weighted(context, node, _aten.upsample_bilinear2d.default)
    return True


def _nearest(context: Any, node: Any, resize: Any) -> None:
    """Lower a resizing that repeats and drops values: these are picked by their places.

    ``resize`` is an ATen call of lines that finds them.
    """
    x, _, *scales = _get_inputs(context, node, min_expected=2)
    sizes = _sizes(x, node, x.rank - 2)
    for side, (size, factor) in enumerate(zip(sizes, _factors(scales, len(sizes)), strict=True)):
        x = Builder.gather(x=x, indices=_places(resize, *size, factor), axis=2 + side)
    context.add(x, torch_name=node.name)


def misplaced_nearest(context: Any, node: Any) -> bool:
    """Lower a nearest resizing of which Core ML's would pick other values; say whether it does."""
    x, _, *scales = _get_inputs(context, node, min_expected=2)
    resize, sizes = _aten.upsample_nearest1d.default, _lengths(x, node, x.rank - 2)
    factors = _factors(scales, len(sizes))
    if not _are_known(sizes) or not any(
        (_places(resize, before, after, factor) != np.arange(after) * before // after).any()
        for (before, after), factor in zip(sizes, factors, strict=True)
    ):
        return False
    _nearest(context, node, resize)
    return True


def _adaptive_average(context: Any, node: Any) -> None:
    """Lower ``_adaptive_avg_pool3d``: a mean along each side in turn."""
    x = _get_inputs(context, node, min_expected=2)[0]
    weights = [_window_means(*size) for size in _sizes(x, node, 3)]
    context.add(_product_along_sides(x, weights), torch_name=node.name)


def _product_along_sides(x: Any, weights: list[NDArray[Any]]) -> Any:
    """Sums of ``x`` along its last axes, each weighed by the rows of its weights."""
    for axis, matrix in reversed(list(enumerate(weights, start=x.rank - len(weights)))):
        if not np.array_equal(matrix, np.eye(len(matrix))):
            x = _product_along(x, matrix, axis)
    return x


def _product_along(x: Any, weights: NDArray[Any], axis: int) -> Any:
    if axis == x.rank - 1:
        return Builder.matmul(x=x, y=weights, transpose_y=True)
    if axis == x.rank - 2:
        return Builder.matmul(x=weights, y=x)
    shape = [-1 if is_symbolic(length) else length for length in x.shape]
    flat = Builder.reshape(x=x, shape=[*shape[: axis + 1], int(np.prod(shape[axis + 1 :]))])
    product = Builder.matmul(x=weights, y=flat)
    return Builder.reshape(x=product, shape=[*shape[:axis], len(weights), *shape[axis + 1 :]])


def _sizes(x: Any, node: Any, sides: int) -> list[tuple[int, int]]:
    """The lengths of each side before and after. Raises DkmError if one is not known."""
    found = _lengths(x, node, sides)
    if not _are_known(found):
        raise DkmError(
            f"{layer_of(node) or 'the model'}: images are resized with {node.kind} from fixed "
            "sizes only; fix height and width, or take another mode"
        )
    return found


def _lengths(x: Any, node: Any, sides: int) -> list[tuple[Any, Any]]:
    return list(zip(x.shape[-sides:], node.meta["val"].shape[-sides:], strict=True))


def _are_known(sizes: list[tuple[Any, Any]]) -> bool:
    return all(isinstance(length, (int, np.integer)) for size in sizes for length in size)


def _factors(scales: list[Any], sides: int) -> list[float | None]:
    """The factor of each side, given as one list, as a number each, or not at all."""
    values = scales[0] if scales and isinstance(scales[0], (list, tuple)) else scales
    values = [None if value is None else float(value.val) for value in values]
    return values if len(values) == sides else [None] * sides


def _is_broken(length: Any, factor: float | None) -> bool:
    """Whether a length times a factor is no whole number, as coremltools decides it."""
    if factor is None or is_symbolic(length):
        return False
    return bool(length * factor - np.floor(length * factor) > _WHOLE)


def _resize_weights(
    resize: Any, before: int, after: int, align: bool, factor: float | None
) -> NDArray[Any]:
    """What each of ``before`` pixels of a line counts in ``after``, (after, before) float32."""
    unit = torch.eye(before)[None, None]
    weights = resize(unit, [after, before], align, factor, None)
    return weights[0, 0].numpy()  # type: ignore[no-any-return]


def _window_means(before: int, after: int) -> NDArray[Any]:
    """What each of ``before`` values counts in ``after`` means, (after, before) float32."""
    pooled = torch.nn.functional.adaptive_avg_pool1d(torch.eye(before), after)
    return pooled.T.contiguous().numpy()


def _places(resize: Any, before: int, after: int, factor: float | None) -> NDArray[Any]:
    """Which of ``before`` values each of ``after`` is, int32."""
    line = torch.arange(before, dtype=torch.float64)[None, None]
    return resize(line, [after], factor)[0, 0].numpy().astype(np.int32)  # type: ignore[no-any-return]


def _in_each_form(name: str, lowering: Lowering) -> dict[str, Lowering]:
    """The lowering under both names of an ATen call."""
    return {name: lowering, f"{name}.vec": lowering}


_exact = _aten._upsample_nearest_exact1d.default
_plain = _aten.upsample_nearest1d.default
RESIZING: Mapping[str, Lowering] = {
    **_in_each_form(
        "upsample_trilinear3d", partial(_weighted, resize=_aten.upsample_bilinear2d.default)
    ),
    **{
        key: lowering
        for name in ("upsample_bicubic2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa")
        for key, lowering in _in_each_form(
            name, partial(_weighted, resize=getattr(_aten, name).default)
        ).items()
    },
    **_in_each_form("upsample_nearest3d", partial(_nearest, resize=_plain)),
    **{
        key: lowering
        for sides in (1, 2, 3)
        for key, lowering in _in_each_form(
            f"_upsample_nearest_exact{sides}d", partial(_nearest, resize=_exact)
        ).items()
    },
    "_adaptive_avg_pool3d": _adaptive_average,
}
