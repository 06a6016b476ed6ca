"""Run a model of the user's and leave it as it is, whatever its forward writes.

Every public function runs and reads models in eval mode, through a copy that :func:`run_copy`
gives, or through a deep copy where it changes weights itself.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from dkm_deploy.nn_utils import random_state
from dkm_deploy.nn_utils.copies import results_in

_DECODERS = "parametrizations."  # whose buffers no forward writes: indices and LUTs, mostly

_T = TypeVar("_T")


@contextmanager
def run_copy(model: nn.Module) -> Iterator[nn.Module]:
    """A copy of ``model`` in eval mode, to run in place of it.

    What forward writes goes to the copy: buffers, attributes, lists. Parameters and palettes, which
    may be large, share their memory with the model's; those that forward writes in place all the
    same are put back when the block ends.
    """
    shared = _shareable_tensors(model)
    with _PutBack(shared):
        yield _copy_model(model, shared)


def eval_copy(model: nn.Module) -> nn.Module:
    """As :func:`run_copy` gives it, for what only traces the copy: nothing is put back."""
    return _copy_model(model, _shareable_tensors(model))


@contextmanager
def rewind_state(model: nn.Module) -> Iterator[None]:
    """A model of our own with copies of its buffers, so that the next run starts as this one."""
    own = [m for name, m in model.named_modules() if _DECODERS not in f"{name}."]
    kept = [(module, dict(module._buffers)) for module in own]
    copies = {id(b): b.clone() for _, buffers in kept for b in buffers.values() if b is not None}
    for module, buffers in kept:
        module._buffers.update({n: copies[id(b)] for n, b in buffers.items() if b is not None})
    try:
        yield
    finally:
        for module, buffers in kept:
            module._buffers.update(buffers)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """A model in eval mode, and in the modes that it had afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def keep_random_state() -> Iterator[None]:
    """Leave the random states of torch, numpy and Python as they were; also a decorator."""
    state = random_state.snapshot()
    try:
        yield
    finally:
        random_state.restore(state)


def written_buffers(model: nn.Module, copied: nn.Module) -> list[str]:
    """Names of the buffers that differ in a copy of ``model`` which has run."""
    before, after = _own_buffers(model), _own_buffers(copied)
    return [n for n, buffer in before.items() if n not in after or not _equal(buffer, after[n])]


def own_copies(values: _T) -> _T:
    """Nested tuples, lists and mappings with a copy of every tensor, which forward may write."""
    copies: _T = pytree.tree_map_only(Tensor, _clone, values)
    return copies


def _clone(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_(tensor.requires_grad)


def _shareable_tensors(model: nn.Module) -> list[Tensor]:
    """Tensors whose memory a copy may share; none of a model that trains, for eval() may merge."""
    if any(module.training for module in model.modules()):
        return []
    decoders = [b for name, b in model.named_buffers() if _DECODERS in name]
    plain = [p for p in model.parameters() if type(p) is nn.Parameter and not p.is_inference()]
    return [t for t in (*plain, *decoders) if t.layout is torch.strided]


def _copy_model(model: nn.Module, shared: Iterable[Tensor]) -> nn.Module:
    memo: dict[int, Any] = {id(t): t.detach().clone() for t in results_in(model)}
    for tensor in shared:
        alias = tensor.detach()
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(alias, tensor.requires_grad) if is_parameter else alias
    copied = copy.deepcopy(model, memo)
    if any(module.training for module in model.modules()):
        _to_eval(copied)
    return copied


def _to_eval(model: nn.Module) -> None:
    try:
        model.eval()
    except NotImplementedError:  # the module of an exported program, whose mode is in its graph
        for module in model.modules():
            module.training = False


def _own_buffers(model: nn.Module) -> dict[str, Tensor]:
    return {name: b for name, b in model.named_buffers() if _DECODERS not in name}


def _equal(one: Tensor, other: Tensor) -> bool:
    """Bit for bit, so that NaN equals itself; sparse ones count as equal."""
    if one.layout is not torch.strided:
        return True
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    bits = [t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (one, other)]
    return torch.equal(*bits)


class _PutBack(TorchDispatchMode):  # type: ignore[no-untyped-call]  # of torch
    """While it is active, storages that an operation is about to write are kept; then put back."""

    supports_higher_order_operators = True  # such as torch.cond, whose branches come here too

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._storages = {t.untyped_storage().data_ptr() for t in tensors if t.numel()}
        self._kept: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation, once what it writes of the model's own memory is kept."""
        arguments = func._schema.arguments if isinstance(func, torch._ops.OpOverload) else ()
        given = dict(zip((a.name for a in arguments), args, strict=False)) | (kwargs or {})
        for argument in arguments:
            if argument.alias_info is not None and argument.alias_info.is_write:
                for leaf in pytree.tree_leaves(given.get(argument.name)):
                    self._keep(leaf)
        return func(*args, **(kwargs or {}))

    @classmethod
    def is_infra_mode(cls) -> bool:
        """Whether dynamo traces under it: where it does not, torch.cond is never exported again."""
        return True

    def _keep(self, written: Any) -> None:
        if type(written) not in (Tensor, nn.Parameter) or written.layout is not torch.strided:
            return
        storage = written.untyped_storage()
        place = storage.data_ptr()
        if place in self._storages and place not in self._kept:
            self._kept[place] = storage, storage.clone()

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)  # type: ignore[no-untyped-call]
        for storage, before in self._kept.values():
            storage.copy_(before)
