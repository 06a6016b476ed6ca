"""Lists of tensors, which loops fill."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dkm_deploy.errors import DkmError
from dkm_deploy.formats.mlpackage.limits import check_elements
from dkm_deploy.runtimes.mlprogram.kernels.registry import Items, kernel

_DTYPES = {
    "fp16": torch.float32,
    "fp32": torch.float32,
    "int32": torch.int32,
    "bool": torch.bool,
}


class _FixedList(list[Tensor]):
    """A list whose length may not change."""


@kernel("make_list")
def _make_list(
    elem_shape: Items, init_length: int = 1, dynamic_length: bool = True, dtype: str = "fp32"
) -> list[Tensor]:
    # A length that is only known at run time is given by name; such an element is replaced
    # before it is read.
    shape = [0 if isinstance(length, str) else int(length) for length in elem_shape]
    check_elements([init_length, *shape])
    if dtype not in _DTYPES:
        raise DkmError(f"dtype {dtype!r} is unknown; known: {', '.join(_DTYPES)}")
    elements = [torch.zeros(shape, dtype=_DTYPES[dtype]) for _ in range(init_length)]
    return elements if dynamic_length else _FixedList(elements)


@kernel("list_length")
def _list_length(ls: Sequence[Tensor]) -> Tensor:
    return torch.tensor(len(ls), dtype=torch.int32)


@kernel("list_read")
def _list_read(ls: Sequence[Tensor], index: int) -> Tensor:
    return ls[_inside(index, len(ls))]


@kernel("list_gather")
def _list_gather(ls: Sequence[Tensor], indices: Tensor) -> Tensor:
    return torch.stack([ls[_inside(place, len(ls))] for place in indices.tolist()])


@kernel("list_write")
def _list_write(ls: Sequence[Tensor], index: int, value: Tensor) -> list[Tensor]:
    return _with(ls, [index], [value])


@kernel("list_scatter")
def _list_scatter(ls: Sequence[Tensor], indices: Tensor, value: Tensor) -> list[Tensor]:
    return _with(ls, indices.tolist(), list(value))


def _with(ls: Sequence[Tensor], places: list[int], values: list[Tensor]) -> list[Tensor]:
    """The list with some elements replaced; it grows as far as that needs."""
    fixed = isinstance(ls, _FixedList)
    places = [_inside(place, len(ls) if fixed else None) for place in places]
    short = max(places, default=0) + 1 - len(ls)
    check_elements([short, *values[0].shape] if values else [0])
    result = [*ls] + [torch.zeros_like(values[0]) for _ in range(short)]
    for place, value in zip(places, values, strict=True):
        result[place] = value
    return _FixedList(result) if fixed else result


def _inside(place: int, length: int | None) -> int:
    """The place. Raises DkmError if the list has none such; one without a length can grow."""
    if place < 0 or (length is not None and place >= length):
        raise DkmError(f"place {place} lies outside a list of {length or 'any number of'} elements")
    return place
