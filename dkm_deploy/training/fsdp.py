"""Parameters that FSDP2 has sharded, and those it has not, alike."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(tensor: Tensor) -> Tensor:
    """A parameter or gradient that FSDP2 has sharded, gathered from all processes."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard(tensor: Tensor) -> Tensor:
    """This process's part of a sharded one."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def overwrite(parameter: Tensor, value: Tensor) -> None:
    """Give a parameter other values; each process its part of a sharded one."""
    if isinstance(parameter, DTensor):
        value = distribute_tensor(value, parameter.device_mesh, parameter.placements)
    parameter.copy_(value)
