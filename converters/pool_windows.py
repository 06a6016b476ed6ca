"""Windows of pooling along one side of an image, as PyTorch counts them."""

from __future__ import annotations

from collections.abc import Sequence


def of_each(values: Sequence[int], sides: int) -> list[int]:
    """A number for each side, where one may stand for all."""
    return list(values) * sides if len(values) == 1 else list(values)


def count_windows(
    length: int, size: int, step: int, pad: int, apart: int, *, ceil_mode: bool
) -> tuple[int, int]:
    """How many windows a side has, and where the last one ends.

    Args:
        length: of the side.
        size: values of a window.
        step: from one window to the next.
        pad: values before and behind the side.
        apart: places from one value of a window to the next.
        ceil_mode: whether the last window may reach beyond the padding; none begins in it.

    Returns:
        The number, and the end counted from where the padding begins.
    """
    reach = apart * (size - 1) + 1
    count = (length + 2 * pad - reach) // step + 1
    if ceil_mode:
        count = -((reach - length - 2 * pad) // step) + 1
        count -= (count - 1) * step >= length + pad
    return count, (count - 1) * step + reach
