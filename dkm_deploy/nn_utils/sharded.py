"""Parameters that FSDP2 has sharded: told apart without importing what only they need."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_sharded(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether a tensor is a ``DTensor``."""
    if not is_traceable_wrapper_subclass(tensor):
        return False
    from torch.distributed.tensor import DTensor  # takes half a second

    return isinstance(tensor, DTensor)
