"""Axes and indices as operations may have them; what lies outside is refused."""

from collections.abc import Iterable

import torch
from torch import Tensor

from dkm_deploy.errors import DkmError

IOS17 = 7  # its opset's number


def dimension(axis: int, rank: int) -> int:
    """An axis counted from the start. Raises DkmError unless it is one of ``rank`` dimensions."""
    if not -rank <= axis < rank:
        raise DkmError(f"axis {axis} lies outside {rank} dimensions")
    return axis % rank


def dimensions(axes: Iterable[int], rank: int) -> list[int]:
    """Axes counted from the start. Raises DkmError for one that is outside or named twice."""
    found = [dimension(axis, rank) for axis in axes]
    if len(set(found)) < len(found):
        raise DkmError(f"axes {tuple(axes)} name one of {rank} dimensions twice")
    return found


def places(indices: Tensor, length: int, opset: int, validate: bool = False) -> Tensor:
    """Indices into a dimension of ``length``, as torch takes them.

    Before iOS 17 negative ones count from the end; since then they lie outside.

    Args:
        indices: whole numbers.
        length: of the dimension that they point into.
        opset: number of the program's opset.
        validate: whether the operation asks for a check; only the message depends on it.

    Raises:
        DkmError: one lies outside. Core ML refuses it if asked to, and else leaves it undefined.
    """
    least = 0 if opset >= IOS17 else -length
    wrong = indices[(indices < least) | (indices >= length)]
    if wrong.numel():
        why = "validate_indices refuses it" if validate else "Core ML does not define what it reads"
        raise DkmError(f"index {int(wrong[0])} lies outside {least} to {length - 1}: {why}")
    found = indices.long()
    return torch.where(found < 0, found + length, found)
