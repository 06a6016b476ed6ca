"""A small but real network: what the converters must handle, in one."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class DigitNet(nn.Module):
    """A CNN for 8x8 grey digits.

    Convolution and BatchNorm, a depthwise layer, a residual connection, a linear head.
    """

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 32, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(32)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(32)
        self.pointwise = nn.Conv2d(32, width, 1, bias=False)
        self.pointwise_norm = nn.BatchNorm2d(width)
        self.block1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.block1_norm = nn.BatchNorm2d(width)
        self.block2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.block2_norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Scores ``(n, 10)`` of images ``(n, 1, 8, 8)``."""
        x = functional.relu(self.stem_norm(self.stem(x)))
        x = functional.relu(self.depthwise_norm(self.depthwise(x)))
        x = functional.relu(self.pointwise_norm(self.pointwise(x)))
        x = functional.max_pool2d(x, 2)
        residual = functional.relu(self.block1_norm(self.block1(x)))
        x = functional.relu(x + self.block2_norm(self.block2(residual)))
        scores: Tensor = self.head(x.mean((2, 3)))
        return scores
