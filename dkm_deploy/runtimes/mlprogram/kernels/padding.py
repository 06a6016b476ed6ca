"""The pad types that convolutions and pools share."""

from collections.abc import Sequence

from dkm_deploy.errors import DkmError

Pads = list[tuple[int, int]]


def explicit_pads(
    pad_type: str,
    pad: Sequence[int],
    lengths: Sequence[int],
    windows: Sequence[int],
    strides: Sequence[int],
) -> Pads:
    """Padding before and after each spatial dimension.

    Args:
        pad_type: "valid", "custom", "same" or "same_lower".
        pad: before and after each dimension, for "custom".
        lengths: of the input's spatial dimensions.
        windows: kernel sizes with dilation.
        strides: of the kernel.

    Raises:
        DkmError: the pad type is unknown.
    """
    if pad_type == "valid":
        return [(0, 0)] * len(lengths)
    if pad_type == "custom":
        return list(zip(pad[::2], pad[1::2], strict=True))
    if pad_type not in ("same", "same_lower"):
        raise DkmError(f"pad_type {pad_type!r} is unknown")
    totals = [
        max(0, (-(-length // stride) - 1) * stride + window - length)
        for length, window, stride in zip(lengths, windows, strides, strict=True)
    ]
    if pad_type == "same":
        return [(total // 2, total - total // 2) for total in totals]
    return [(total - total // 2, total // 2) for total in totals]


def symmetric(pads: Pads) -> tuple[int, ...] | None:
    """The padding of each dimension if it is the same before and after, else None."""
    if any(before != after for before, after in pads):
        return None
    return tuple(before for before, _ in pads)


def flat(pads: Pads) -> list[int]:
    """As ``torch.nn.functional.pad`` takes it: last dimension first."""
    return [amount for pair in reversed(pads) for amount in pair]
