"""Operators that pick values by place, and those that make values from shapes."""

import torch
from torch import Tensor

from dkm_deploy.errors import DkmError
from dkm_deploy.formats.mlpackage.limits import check_elements
from dkm_deploy.runtimes.mlprogram.kernels.places import dimension, places
from dkm_deploy.runtimes.mlprogram.kernels.registry import Bools, Ints, kernel


@kernel("slice_by_index", exact=True)
def _slice_by_index(
    x: Tensor,
    begin: Ints,
    end: Ints,
    stride: Ints = (),
    begin_mask: Bools = (),
    end_mask: Bools = (),
    squeeze_mask: Bools = (),
) -> Tensor:
    none = (False,) * x.ndim
    squeezed = [axis for axis, squeeze in enumerate(squeeze_mask or none) if squeeze]
    for axis in range(x.ndim):
        first = None if (begin_mask or none)[axis] else begin[axis]
        last = None if (end_mask or none)[axis] else end[axis]
        step = stride[axis] if stride else 1
        if axis in squeezed:
            first = dimension(begin[axis] if first is not None else 0, x.shape[axis])
            last, step = first + 1, 1
        x = _slice(x, axis, slice(first, last, step))
    return x.squeeze(squeezed) if squeezed else x


def _slice(x: Tensor, axis: int, part: slice) -> Tensor:
    start, stop, step = part.indices(x.shape[axis])
    if step > 0:
        return x.narrow(axis, start, max(0, stop - start))[
            (slice(None),) * axis + (slice(None, None, step),)
        ]
    order = torch.arange(start, stop, step) if start > stop else torch.zeros(0, dtype=torch.long)
    return x.index_select(axis, order)


@kernel("slice_by_size", exact=True)
def _slice_by_size(x: Tensor, begin: Ints, size: Ints) -> Tensor:
    for axis, (start, length) in enumerate(zip(begin, size, strict=True)):
        first = dimension(start, x.shape[axis]) if start < 0 else start
        x = x.narrow(axis, first, x.shape[axis] - first if length == -1 else length)
    return x


@kernel("slice_update", exact=True)
def _slice_update(
    x: Tensor,
    update: Tensor,
    begin: Ints,
    end: Ints,
    stride: Ints = (),
    begin_mask: Bools = (),
    end_mask: Bools = (),
    squeeze_mask: Bools = (),
) -> Tensor:
    order = torch.arange(x.numel()).reshape(x.shape)
    where = _slice_by_index(order, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    if where.shape != update.shape or not update.ndim:
        raise DkmError(f"update has shape {tuple(update.shape)}; the slice {tuple(where.shape)}")
    result = x.flatten()
    return result.index_copy(0, where.flatten(), update.flatten()).reshape(x.shape)


@kernel("gather", exact=True)
def _gather(
    x: Tensor,
    indices: Tensor,
    opset: int,
    axis: int = 0,
    batch_dims: int = 0,
    validate_indices: bool = False,
) -> Tensor:
    axis = dimension(axis, x.ndim)
    if (
        not 0 <= batch_dims <= min(axis, indices.ndim)
        or x.shape[:batch_dims] != (indices.shape[:batch_dims])
    ):
        raise DkmError(f"batch_dims {batch_dims} does not fit axis {axis} and the indices' shape")
    return _pick(x, places(indices, x.shape[axis], opset, validate_indices), axis, batch_dims)


def _pick(x: Tensor, where: Tensor, axis: int, batch_dims: int) -> Tensor:
    if batch_dims == 0:
        picked = x.index_select(axis, where.flatten())
        return picked.reshape(x.shape[:axis] + where.shape + x.shape[axis + 1 :])
    pairs = zip(x.flatten(0, batch_dims - 1), where.flatten(0, batch_dims - 1), strict=True)
    parts = [_pick(part, inner, axis - batch_dims, 0) for part, inner in pairs]
    return _unflatten(torch.stack(parts), x.shape[:batch_dims])


@kernel("gather_along_axis", exact=True)
def _gather_along_axis(
    x: Tensor, indices: Tensor, opset: int, axis: int = 0, validate_indices: bool = False
) -> Tensor:
    axis = dimension(axis, x.ndim)
    check_beside(indices, x, axis)
    return x.gather(axis, places(indices, x.shape[axis], opset, validate_indices))


@kernel("gather_nd", exact=True)
def _gather_nd(
    x: Tensor, indices: Tensor, opset: int, batch_dims: int = 0, validate_indices: bool = False
) -> Tensor:
    if x.shape[:batch_dims] != indices.shape[:batch_dims]:
        raise DkmError(f"batch_dims {batch_dims} does not fit the indices' shape")
    columns = [
        places(column, length, opset, validate_indices)
        for column, length in zip(indices.unbind(-1), x.shape[batch_dims:], strict=False)
    ]
    if len(columns) < indices.shape[-1]:
        raise DkmError(
            f"{indices.shape[-1]} indices per value for {x.ndim - batch_dims} dimensions"
        )
    if not batch_dims:
        return x[tuple(columns)]
    where = torch.stack(columns, -1)
    pairs = zip(x.flatten(0, batch_dims - 1), where.flatten(0, batch_dims - 1), strict=True)
    parts = [part[tuple(inner.unbind(-1))] for part, inner in pairs]
    return _unflatten(torch.stack(parts), x.shape[:batch_dims])


def check_beside(indices: Tensor, x: Tensor, axis: int) -> None:
    """Raise DkmError unless the shapes are equal but for ``axis``."""
    rest = [[n for d, n in enumerate(t.shape) if d != axis] for t in (indices, x)]
    if indices.ndim != x.ndim or rest[0] != rest[1]:
        shapes = f"{tuple(indices.shape)} beside {tuple(x.shape)}"
        raise DkmError(f"indices of shape {shapes}: they must differ along axis {axis} alone")


def _unflatten(x: Tensor, shape: torch.Size) -> Tensor:
    return x.reshape(shape + x.shape[1:])


@kernel("shape")
def _shape(x: Tensor) -> Tensor:
    return torch.tensor(x.shape, dtype=torch.int32)


@kernel("fill", exact=True)
def _fill(shape: Ints, value: Tensor | None = None) -> Tensor:
    check_elements(shape)
    return torch.zeros(shape) if value is None else value.expand(shape).clone()


@kernel("fill_like", exact=True)
def _fill_like(ref_tensor: Tensor, value: Tensor | None = None) -> Tensor:
    return _fill(tuple(ref_tensor.shape), value)


@kernel("range_1d")
def _range_1d(end: Tensor, start: Tensor, step: Tensor) -> Tensor:
    check_elements([int((end.item() - start.item()) / step.item())])
    return torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype)


@kernel("one_hot", exact=True)
def _one_hot(
    indices: Tensor,
    one_hot_vector_size: int,
    axis: int = -1,
    on_value: Tensor | None = None,
    off_value: Tensor | None = None,
) -> Tensor:
    check_elements([indices.numel(), one_hot_vector_size])
    outside = indices[(indices < 0) | (indices >= one_hot_vector_size)]
    if outside.numel():
        raise DkmError(
            f"index {int(outside[0])} lies outside 0 to {one_hot_vector_size - 1}: "
            "what Core ML makes of it is not documented"
        )
    on = torch.tensor(1, dtype=torch.int32) if on_value is None else on_value
    off = torch.tensor(0, dtype=torch.int32) if off_value is None else off_value
    hot = indices.unsqueeze(-1) == torch.arange(one_hot_vector_size)
    return torch.where(hot, on, off).movedim(-1, dimension(axis, hot.ndim))


@kernel("band_part", exact=True)
def _band_part(x: Tensor, lower: int = -1, upper: int = -1) -> Tensor:
    x = x if upper < 0 else x.tril(upper)
    return x if lower < 0 else x.triu(-lower)


@kernel("non_zero")
def _non_zero(x: Tensor) -> Tensor:
    return x.nonzero()
