"""Copies of modules that ``copy.deepcopy`` alone cannot make, or would tie to the original."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import cast

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.utils import parametrize
from torch.utils import _pytree as pytree


def unwrap(model: nn.Module) -> nn.Module:
    """The user's own module in what ``torch.compile``, DataParallel or DDP have made of it.

    Its parameters go by the names that the user gave them.
    """
    while True:
        if isinstance(model, (DataParallel, DistributedDataParallel)):
            model = model.module
        elif type(model).__name__ == "OptimizedModule":  # its package is slow to import
            model = cast(nn.Module, model._orig_mod)
        else:
            return model


def independent_copy(model: nn.Module) -> nn.Module:
    """A deep copy whose parametrized modules have classes of their own.

    ``copy.deepcopy`` keeps the class that ``register_parametrization`` made, and
    ``remove_parametrizations`` deletes the weight's property from that class: on a plain copy it
    would break the original (torch 2.13). Nor can it copy tensors that modules have computed.
    """
    copied = copy.deepcopy(model, {id(t): t.detach().clone() for t in results_in(model)})
    for module in copied.modules():
        if parametrize.is_parametrized(module):
            cls = type(module)
            module.__class__ = type(cls.__name__, cls.__bases__, dict(cls.__dict__))
    return copied


def results_in(model: nn.Module) -> Iterator[Tensor]:
    """Tensors that modules keep of a forward pass: no leaves of the graph, so not to be copied.

    Weights under a norm or a pruning mask of ``torch.nn.utils``, and those that an LSTM or a GRU
    has flattened.
    """
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, (Tensor, list, tuple)):
                leaves = pytree.tree_leaves(value)
                yield from (t for t in leaves if isinstance(t, Tensor) and not t.is_leaf)
