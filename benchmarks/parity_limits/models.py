"""Small models of many kinds for :mod:`benchmarks.parity_limits`, and faults to plant in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


class Net(nn.Module):
    """A model whose forward looks at ``fault``, where a fault is one of the program."""

    fault = ""


class Convolutions(Net):
    """Convolutions with batch normalization, pooled: (n, 3, 16, 16) to (n, 10)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width)
        self.body = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.other = nn.BatchNorm2d(2 * width)
        self.head = nn.Linear(2 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.stem(x)))
        x = self.other(self.body(x))
        x = x if self.fault == "relu" else functional.relu(x)
        return self.head(x.mean((2, 3)))


class Residual(Net):
    """Residual blocks with SiLU: (n, 3, 12, 12) to (n, 8, 6, 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(12, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.SiLU()
            )
            for _ in range(3)
        )
        self.head = nn.Conv2d(12, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(functional.max_pool2d(x, 2))


class Depthwise(Net):
    """Depthwise separable convolutions with Hardswish: (n, 3, 16, 16) to (n, 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.deep, self.deep_norm = nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.BatchNorm2d(16)
        self.point, self.head = nn.Conv2d(16, 32, 1), nn.Linear(32, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.hardswish(self.norm(self.stem(x)))
        x = functional.relu6(self.deep_norm(self.deep(x)))
        return self.head(functional.adaptive_avg_pool2d(self.point(x), 1).flatten(1))


class Perceptron(Net):
    """Linear layers with tanh: (n, 32) to (n, 12)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(32, 48), nn.Linear(48, 48)
        self.head = nn.Linear(48, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        x = self.second(x) if self.fault == "relu" else functional.relu(self.second(x))
        return self.head(x)


class Rectified(Perceptron):
    """ReLU alone, which does not saturate: outputs grow with inputs."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.relu(self.second(functional.relu(self.first(x)))))


class Probabilities(Perceptron):
    """Softmax: (n, 32) to (n, 12)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(3 * x).mul(8).softmax(-1)


class Tiny(Perceptron):
    """Outputs near 1e-4."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 1e-3


class Ranges(Perceptron):
    """Channels from 1e-3 to 1e4 and one of zeros."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.scales

    scales: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scales", torch.cat([torch.logspace(-3, 4, 11), torch.zeros(1)]))


class Dead(Perceptron):
    """A last ReLU, under which most channels are dead."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(super().forward(x) - 0.3)


class Recurrent(Net):
    """An LSTM or GRU: (n, 10, 8) to (n, 10, 6)."""

    def __init__(self, kind: type[nn.LSTM | nn.GRU] = nn.LSTM) -> None:
        super().__init__()
        self.cell, self.head = kind(8, 16, batch_first=True), nn.Linear(16, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0])


class Block(Net):
    """A causal transformer block on tokens: (n, 12) to (n, 12, 20)."""

    width, heads = 32, 4

    def __init__(self) -> None:
        super().__init__()
        wide = self.width
        self.embed, self.place = nn.Embedding(50, wide), nn.Parameter(torch.randn(12, wide) / 4)
        self.norm, self.qkv, self.out = (
            nn.LayerNorm(wide),
            nn.Linear(wide, 3 * wide),
            nn.Linear(wide, wide),
        )
        self.after, self.up, self.down = (
            nn.LayerNorm(wide),
            nn.Linear(wide, 4 * wide),
            nn.Linear(4 * wide, wide),
        )
        self.last, self.head = nn.LayerNorm(wide), nn.Linear(wide, 20)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens) + self.place
        x = x + self.attend(self.norm(x))
        gelu = "tanh" if self.fault == "gelu" else "none"
        x = x + self.down(functional.gelu(self.up(self.after(x)), approximate=gelu))
        return self.head(self.last(x))

    def attend(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(x).chunk(3, -1)
        )
        scores = q @ k.transpose(-1, -2) / (self.width // self.heads) ** 0.5
        ahead = torch.ones(12, 12, dtype=torch.bool).triu(2 if self.fault == "mask" else 1)
        scores = scores.masked_fill(ahead, -1e4)
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Encoder(Net):
    """Two post-norm encoder layers of PyTorch's own: (n, 6, 16) to (n, 16)."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).mean(1)


class Detector(Net):
    """Boxes near 320 and 20 class scores, in one output: (n, 3, 16, 16) to (n, 24, 64)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 24, 3, 2, 1), nn.BatchNorm2d(24)
        self.box, self.classes = nn.Conv2d(24, 4, 1), nn.Conv2d(24, 20, 1)
        with torch.no_grad():
            self.box.weight.mul_(20)
            self.box.bias.fill_(320)  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.stem(x)))
        scores = torch.sigmoid(2 * self.classes(x) - 3)
        scores = {"flat": 0 * scores + 0.5, "reversed": scores.flip(1)}.get(self.fault, scores)
        return torch.cat([self.box(x).flatten(2), scores.flatten(2)], 1)


class Upsampler(Net):
    """A transposed convolution and two outputs: (n, 3, 8, 8) to (n, 5, 16, 16) and (n, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.up = nn.Conv2d(3, 12, 3, padding=1), nn.ConvTranspose2d(12, 8, 2, 2)
        self.map, self.score = nn.Conv2d(8, 5, 3, padding=1), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = functional.gelu(self.up(functional.leaky_relu(self.stem(x))))
        return {"map": self.map(x), "score": self.score(x.amax((2, 3)))}


class Grouped(Net):
    """Group normalization, pixels from 0 to 255: (n, 3, 12, 12) to (n, 7)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.GroupNorm(4, 16)
        self.head = nn.Linear(16, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.silu(self.norm(self.stem(x / 255 - 0.5)))
        return self.head(functional.avg_pool2d(x, 12).flatten(1))


def _images(count: int, size: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(count, 3, size, size)


def _loud() -> Tensor:
    rows = torch.randn(100, 32)
    return torch.cat([1e4 * rows[:1], rows[1:]])


def _rows(count: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(count, 32)


@dataclass(frozen=True)
class Kind:
    """A model and its inputs."""

    make: Callable[[], Net]
    inputs: Callable[[], Tensor]


KINDS = {
    "convolutions": Kind(Convolutions, _images(16, 16)),
    "residual": Kind(Residual, _images(6, 12)),
    "depthwise": Kind(Depthwise, _images(12, 16)),
    "perceptron": Kind(Perceptron, _rows(100)),
    "perceptron, one sample": Kind(Perceptron, _rows(1)),
    "loud sample": Kind(Rectified, _loud),
    "softmax": Kind(Probabilities, _rows(64)),
    "tiny outputs": Kind(Tiny, _rows(40)),
    "ranges": Kind(Ranges, _rows(40)),
    "dead channels": Kind(Dead, _rows(40)),
    "lstm": Kind(Recurrent, lambda: torch.randn(12, 10, 8)),
    "gru": Kind(lambda: Recurrent(nn.GRU), lambda: torch.randn(12, 10, 8)),
    "transformer block": Kind(Block, lambda: torch.randint(50, (10, 12))),
    "encoder": Kind(Encoder, lambda: torch.randn(10, 6, 16)),
    "detector": Kind(Detector, lambda: torch.rand(8, 3, 16, 16)),
    "upsampler": Kind(Upsampler, _images(4, 8)),
    "group norm": Kind(Grouped, lambda: torch.randint(256, (12, 3, 12, 12)).float()),
}


def model_of(kind: str, seed: int) -> tuple[Net, Tensor]:
    """A model in eval mode with lively statistics of batch normalization, and its inputs."""
    torch.manual_seed(seed)
    model = KINDS[kind].make().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.3, 1.5)  # type: ignore[arg-type]
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
        if isinstance(module, nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return model, KINDS[kind].inputs()
