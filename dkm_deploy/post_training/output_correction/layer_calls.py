"""What goes into layers and comes out of them, while a model runs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from dkm_deploy.model.calibration import batch_outputs
from dkm_deploy.nn_utils.hooks import call_hooks


@dataclass(frozen=True)
class RecordedCall:
    """One call of a layer.

    Attributes:
        args: positional arguments.
        kwargs: keyword arguments.
        output: what it returned.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any


class _EnoughCalls(BaseException):
    """Ends a forward pass whose rest is not needed; no handler of a model's own catches it."""


@torch.no_grad()
def record_calls(
    model: nn.Module, counts: Mapping[str, int], inputs: Any, number: int, *, arguments: bool
) -> dict[str, list[RecordedCall]]:
    """The first calls of some layers in one forward pass; what comes after them is not run.

    Args:
        model: in eval mode.
        counts: of the calls to wait for, by the name of the layer.
        inputs: of the model.
        number: of the batch, for messages.
        arguments: whether the layers' inputs are kept too; else calls have none.

    Raises:
        DkmError: the model does not run on the inputs.
    """
    found: dict[str, list[RecordedCall]] = {name: [] for name in counts}

    def _note(name: str, _: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        kept = (args, kwargs, output) if arguments else ((), {}, output)
        if len(found[name]) < counts[name]:
            # Copies: later operations may work in place.
            found[name].append(RecordedCall(*pytree.tree_map(_copy_leaf, kept)))
        if all(len(found[name]) == count for name, count in counts.items()):
            raise _EnoughCalls

    with call_hooks(model, counts, _note), suppress(_EnoughCalls):
        batch_outputs(model, inputs, number)
    return found


def _copy_leaf(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, Tensor) else leaf
