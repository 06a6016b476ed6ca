"""Lower ``interpolate(antialias=True)``, of which coremltools leaves the antialiasing out."""

from __future__ import annotations

from typing import Any

import torch
from coremltools.converters.mil import Builder
from coremltools.converters.mil.frontend.torch.ops import _get_inputs
from numpy.typing import NDArray

from dkm_deploy.conversion.failed_operation import layer_of
from dkm_deploy.errors import DkmError

_resized = torch.ops.aten._upsample_bilinear2d_aa.default


def lower_antialiased_resize(context: Any, node: Any) -> None:
    """Lower ``_upsample_bilinear2d_aa`` to a product with constant weights along each side.

    Raises DkmError if the size of the image is not known at conversion.
    """
    x, _, align_corners, *scales = _get_inputs(context, node, min_expected=3)
    align = bool(align_corners.val)
    factors = _factors(scales)
    sizes = list(zip(x.shape[-2:], node.meta["val"].shape[-2:], strict=True))
    if not all(isinstance(length, int) for size in sizes for length in size):
        raise DkmError(
            f"{layer_of(node) or 'the model'}: images are resized with antialiasing from fixed "
            "sizes only; fix height and width, or leave antialias out"
        )
    rows, columns = (
        _weights(*size, align, factor) for size, factor in zip(sizes, factors, strict=True)
    )
    across = Builder.matmul(x=x, y=columns, transpose_y=True)
    context.add(Builder.matmul(x=rows, y=across), torch_name=node.name)


def _factors(scales: list[Any]) -> list[float | None]:
    """The factors of height and width, given as one list, as two numbers, or not at all."""
    values = [None, None] if scales == [None] else scales
    values = values[0] if isinstance(values[0], list) else values
    return [None if value is None else float(value.val) for value in values]


def _weights(before: int, after: int, align: bool, factor: float | None) -> NDArray[Any]:
    """What each of ``before`` pixels of a line counts in ``after``, (after, before) float32."""
    unit = torch.eye(before)[None, None]
    weights = _resized(unit, [after, before], align, factor, None)
    return weights[0, 0].numpy()  # type: ignore[no-any-return]
