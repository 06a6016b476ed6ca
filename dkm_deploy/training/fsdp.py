"""Parameters that FSDP2 has sharded, and those it has not, alike."""

from __future__ import annotations

import torch
from torch import Tensor

from dkm_deploy.nn_utils.sharded import is_sharded


def gather(tensor: Tensor) -> Tensor:
    """A parameter or gradient that FSDP2 has sharded, gathered from all processes."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def shard(tensor: Tensor) -> Tensor:
    """This process's part of a sharded one."""
    return tensor.to_local() if is_sharded(tensor) else tensor


@torch.no_grad()
def overwrite(parameter: Tensor, value: Tensor) -> None:
    """Give a parameter other values; each process its part of a sharded one."""
    if is_sharded(parameter):
        from torch.distributed.tensor import distribute_tensor  # takes half a second

        value = distribute_tensor(value, parameter.device_mesh, parameter.placements)
    parameter.copy_(value)
