"""ResNet-50 in plain torch (He et al., arxiv.org/abs/1512.03385), stride in the 3x3 convolution."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # width, blocks, stride
_EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 beside a shortcut: ``(n, c, h, w)`` to ``(n, 4 width, h / s, w / s)``."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = _EXPANSION * width
        self.body = nn.Sequential(
            *(_conv(channels, width, 1), nn.ReLU()),
            *(_conv(width, width, 3, stride), nn.ReLU()),
            _conv(width, out, 1),
        )
        same = channels == out and stride == 1
        self.shortcut = nn.Identity() if same else _conv(channels, out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return torch.relu(self.body(x) + self.shortcut(x))


class ResNet50(nn.Module):
    """``(n, 3, 224, 224)`` to ``(n, 1000)``; 25.5 M weights."""

    def __init__(self) -> None:
        super().__init__()
        channels = 64
        layers: OrderedDict[str, nn.Module] = OrderedDict(stem=_conv(3, channels, 7, 2))
        layers["pool"] = nn.Sequential(nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        for stage, (width, blocks, stride) in enumerate(_STAGES):
            for block in range(blocks):
                made = Bottleneck(channels, width, stride if block == 0 else 1)
                layers[f"stage{stage}_{block}"] = made
                channels = _EXPANSION * width
        self.features = nn.Sequential(layers)
        self.head = nn.Linear(channels, 1000)

    def forward(self, image: Tensor) -> Tensor:
        """Scores of an image."""
        return self.head(self.features(image).mean((2, 3)))


def _conv(channels: int, out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out))
