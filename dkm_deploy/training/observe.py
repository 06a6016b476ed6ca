"""What goes into one layer and comes out of it, while a model runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from dkm_deploy.training.calibration import outputs_of


@dataclass(frozen=True)
class Call:
    """One call of a layer.

    Attributes:
        args: positional arguments.
        kwargs: keyword arguments.
        output: what it returned.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors."""
        leaves = pytree.tree_leaves((self.args, self.kwargs, self.output))
        return sum(t.nbytes for t in leaves if torch.is_tensor(t))


class _Enough(BaseException):
    """Ends a forward pass whose rest is not needed; no handler of a model's own catches it."""


@torch.no_grad()
def calls_of(model: nn.Module, layer: str, inputs: Any, number: int, count: int) -> list[Call]:
    """The first calls of a layer in a forward pass; what comes after them is not run.

    Args:
        model: in eval mode.
        layer: name of the module.
        inputs: of the model.
        number: of the batch, for messages.
        count: of the calls.

    Raises:
        DkmError: the model does not run on the inputs.
    """
    found: list[Call] = []

    def _note(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        # Copies: later operations may work in place.
        found.append(Call(*pytree.tree_map(_copied, (args, kwargs, output))))
        if len(found) == count:
            raise _Enough

    handle = model.get_submodule(layer).register_forward_hook(_note, with_kwargs=True)
    try:
        with suppress(_Enough):
            outputs_of(model, inputs, number)
    finally:
        handle.remove()
    return found


def _copied(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, Tensor) else leaf


@contextmanager
def unfused_attention() -> Iterator[None]:
    """Without the fused path of attention, which reads weights behind layers and parametrizations."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
