"""Models of bfloat16 in float32, which holds all their values: no file computes in bfloat16."""

from __future__ import annotations

import copy
from itertools import chain

import torch
from torch import Tensor, nn


def is_bfloat16(model: nn.Module) -> bool:
    """Whether a model holds tensors of bfloat16."""
    tensors = chain(model.parameters(), model.buffers())
    return any(tensor.dtype is torch.bfloat16 for tensor in tensors)


def model_in_float32(model: nn.Module) -> nn.Module:
    """A model of bfloat16 as a copy in float32; another one as it is."""
    if not is_bfloat16(model):
        return model
    copied: nn.Module = copy.deepcopy(model)._apply(tensor_in_float32)  # type: ignore[no-untyped-call]
    return copied


def tensor_in_float32(tensor: Tensor) -> Tensor:
    """A tensor of bfloat16 in float32; another one as it is."""
    return tensor.float() if tensor.dtype is torch.bfloat16 else tensor
