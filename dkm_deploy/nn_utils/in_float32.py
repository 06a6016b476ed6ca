"""Models in float32: of bfloat16, in which no file computes, and of float64 where a file cannot."""

from __future__ import annotations

import copy
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn


def holds(model: nn.Module, dtype: torch.dtype) -> bool:
    """Whether a model holds tensors of a dtype."""
    return any(tensor.dtype is dtype for tensor in chain(model.parameters(), model.buffers()))


def model_in_float32(model: nn.Module, dtype: torch.dtype = torch.bfloat16) -> nn.Module:
    """A model that holds tensors of ``dtype`` as a copy with these in float32; another as it is."""
    if not holds(model, dtype):
        return model
    narrow = partial(tensor_in_float32, dtype=dtype)
    copied: nn.Module = copy.deepcopy(model)._apply(narrow)  # type: ignore[no-untyped-call]
    return copied


def tensor_in_float32(tensor: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """A tensor of ``dtype`` in float32; another one as it is."""
    return tensor.float() if tensor.dtype is dtype else tensor
