"""Forward hooks on the layers of a model, and attention without its fused path."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn


@contextmanager
def call_hooks(model: nn.Module, names: Iterable[str], note: Any) -> Iterator[None]:
    """Call ``note(name, module, args, kwargs, output)`` after every call of the named layers."""
    handles = [
        model.get_submodule(name).register_forward_hook(partial(note, name), with_kwargs=True)
        for name in names
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def unfused_attention() -> Iterator[None]:
    """Without the fused path of attention: it reads weights behind layers and parametrizations."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
