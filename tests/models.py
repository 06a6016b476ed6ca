"""Small models that several tests share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

import dkm_deploy as dkm


class SmallNet(nn.Module):
    """Convolution, BatchNorm, depthwise, residual, linear: ``(n, 3, 8, 8)`` to ``(n, 5)``."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.stem(x)))
        x = functional.max_pool2d(x + self.depthwise(x), 2)
        return self.head(x.mean((2, 3)))


class Beside(nn.Module):
    """Modules that read the same input, each for an output of its own."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(modules)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(module(x) for module in self.members)


class TiedNet(nn.Module):
    """An embedding tied to the output layer: ids ``(n, t)`` to scores ``(n, t, 20)``."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 12)
        self.middle = nn.Linear(12, 12)
        self.out = nn.Linear(12, 20)
        self.out.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(torch.tanh(self.middle(self.embed(ids))))


class WideNet(nn.Module):
    """Four weights, of 1,728 to 27,648 values: ``(n, 3, 8, 8)`` to ``(n, 10)``."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, stride=2)
        self.hidden = nn.Linear(64 * 9, 48)
        self.wide = nn.Linear(48, 192)
        self.head = nn.Linear(192, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.hidden(functional.relu(self.stem(x)).flatten(1)))
        return self.head(functional.relu(self.wide(x)))


def wide_net() -> WideNet:
    """A WideNet in eval mode, the same each time."""
    torch.manual_seed(0)
    return WideNet().eval()


def small_net(seed: int = 0) -> SmallNet:
    """A SmallNet whose BatchNorm has statistics worth keeping."""
    torch.manual_seed(seed)
    model = SmallNet()
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(2 * torch.randn(16, 3, 8, 8) + 0.5)
    return model.eval()


MIXED = dkm.Recipe(
    default=dkm.PaletteSpec(bits=3),
    rules=[
        dkm.Rule(match="head.*", spec=dkm.PaletteSpec(bits=8)),
        dkm.Rule(match="depthwise.*", skip=True),
    ],
)

# As MIXED, but with no more clusters than the head has weights, which training insists on.
TRAINABLE = dkm.Recipe(
    default=dkm.PaletteSpec(bits=3),
    rules=[
        dkm.Rule(match="head.*", spec=dkm.PaletteSpec(bits=5)),
        dkm.Rule(match="depthwise.*", skip=True),
    ],
)


def images(count: int = 4, seed: int = 1) -> Tensor:
    """Inputs of a SmallNet or a WideNet."""
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
