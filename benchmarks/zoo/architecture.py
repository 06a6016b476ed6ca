"""One architecture of the zoo: its name, the package that it comes from, and how it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

SAMPLES = 3


@dataclass(frozen=True)
class Architecture:
    """A model with random weights and small inputs.

    Attributes:
        name: package and model, such as ``timm/resnet18``.
        family: the line of the table that it counts in.
        package: the module that must be installed, besides this project's requirements; or None.
        make: the model as it comes, and its inputs: a tensor, a tuple or a mapping of keyword
            inputs, with ``SAMPLES`` samples along the first dimension of every tensor.
    """

    name: str
    family: str
    package: str | None
    make: Callable[[], tuple[nn.Module, Any]]


def images(size: int, channels: int = 3) -> Tensor:
    """Pixels about 0, ``(SAMPLES, channels, size, size)``."""
    return torch.randn(SAMPLES, channels, size, size)


def tokens(vocabulary: int, length: int = 8) -> Tensor:
    """Token numbers from 5 on, for smaller ones are often special; int64 ``(SAMPLES, length)``."""
    return torch.randint(5, vocabulary, (SAMPLES, length))
