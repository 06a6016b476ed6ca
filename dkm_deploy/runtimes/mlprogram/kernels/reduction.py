"""Reductions and what orders values along an axis."""

from collections.abc import Callable

import torch
from torch import Tensor

from dkm_deploy.runtimes.mlprogram.kernels.places import dimensions
from dkm_deploy.runtimes.mlprogram.kernels.registry import Ints, kernel

_Reduce = Callable[[Tensor, list[int], bool], Tensor]


def _product(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    for dim in sorted(dims, reverse=True):
        x = x.prod(dim, keepdim=keep)
    return x


_REDUCTIONS: dict[str, _Reduce] = {
    "reduce_l1_norm": lambda x, dims, keep: x.abs().sum(dims, keepdim=keep),
    "reduce_l2_norm": lambda x, dims, keep: x.square().sum(dims, keepdim=keep).sqrt(),
    "reduce_log_sum": lambda x, dims, keep: x.sum(dims, keepdim=keep).log(),
    "reduce_log_sum_exp": lambda x, dims, keep: x.logsumexp(dims, keepdim=keep),
    "reduce_mean": lambda x, dims, keep: x.mean(dims, keepdim=keep),
    "reduce_prod": _product,
    "reduce_sum": lambda x, dims, keep: x.sum(dims, keepdim=keep),
    "reduce_sum_square": lambda x, dims, keep: x.square().sum(dims, keepdim=keep),
}
_EXACT: dict[str, _Reduce] = {
    "reduce_max": lambda x, dims, keep: x.amax(dims, keepdim=keep),
    "reduce_min": lambda x, dims, keep: x.amin(dims, keepdim=keep),
}


def _register(name: str, reduce: _Reduce, *, exact: bool) -> None:
    @kernel(name, exact=exact)
    def run(x: Tensor, axes: Ints = (), keep_dims: bool = False) -> Tensor:
        dims = dimensions(axes, x.ndim) or list(range(x.ndim))
        return reduce(x, dims, keep_dims)


for _name, _reduce in _REDUCTIONS.items():
    _register(_name, _reduce, exact=False)
for _name, _reduce in _EXACT.items():
    _register(_name, _reduce, exact=True)


@kernel("reduce_argmax", ignored=("output_dtype",))
def _argmax(x: Tensor, axis: int = -1, keep_dims: bool = False) -> Tensor:
    return x.argmax(axis, keepdim=keep_dims)


@kernel("reduce_argmin", ignored=("output_dtype",))
def _argmin(x: Tensor, axis: int = -1, keep_dims: bool = False) -> Tensor:
    return x.argmin(axis, keepdim=keep_dims)


@kernel("argsort")
def _argsort(x: Tensor, axis: int = -1, ascending: bool = False) -> Tensor:
    return torch.sort(x, stable=True, dim=axis, descending=not ascending).indices


@kernel("topk", exact=True, ignored=("output_indices_dtype",))
def _topk(
    x: Tensor,
    k: int = 1,
    axis: int = -1,
    ascending: bool = False,
    sort: bool = True,
    return_indices: bool = True,
) -> tuple[Tensor, ...]:
    found = torch.topk(x, k, axis, largest=not ascending, sorted=sort)
    return tuple(found) if return_indices else (found.values,)


@kernel("cumsum")
def _cumsum(x: Tensor, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Tensor:
    x = x.flip(axis) if reverse else x
    result = x.cumsum(axis)
    result = result - x if exclusive else result
    return result.flip(axis) if reverse else result
