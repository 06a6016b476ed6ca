"""Lower circular padding, which coremltools and Core ML's ``pad`` have not: copies of both ends."""

from __future__ import annotations

from typing import Any

from coremltools.converters.mil import Builder
from coremltools.converters.mil.frontend.torch.ops import _get_inputs


def circular(context: Any, node: Any) -> bool:
    """Lower an ``aten.pad`` if it is circular; say whether it is."""
    x, pad, *rest = _get_inputs(context, node, min_expected=2)
    if not rest or getattr(rest[0], "val", rest[0]) != "circular":
        return False
    amounts = [int(amount) for amount in pad.val]
    for place, amount in enumerate(zip(amounts[::2], amounts[1::2], strict=True)):
        x = _wrap_axis(x, x.rank - 1 - place, *amount)
    context.add(x, torch_name=node.name)
    return True


def _wrap_axis(x: Any, axis: int, before: int, after: int) -> Any:
    """``x`` with its last ``before`` slices in front of it and its first ``after`` behind."""
    parts = [_end(x, axis, before)] if before else []
    parts += [x, _start(x, axis, after)] if after else [x]
    return Builder.concat(values=parts, axis=axis) if len(parts) > 1 else x


def _end(x: Any, axis: int, length: int) -> Any:
    others = [dim != axis for dim in range(x.rank)]
    begin = [0 if other else -length for other in others]
    return Builder.slice_by_index(
        x=x, begin=begin, end=[0] * x.rank, begin_mask=others, end_mask=[True] * x.rank
    )


def _start(x: Any, axis: int, length: int) -> Any:
    others = [dim != axis for dim in range(x.rank)]
    end = [0 if other else length for other in others]
    return Builder.slice_by_index(x=x, begin=[0] * x.rank, end=end, end_mask=others)
