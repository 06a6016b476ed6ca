"""Networks of this benchmark's own, of building blocks that packages of models use little."""

# What a layer gives is Any to mypy, and what a model gives is told by its class.
# mypy: disable-error-code="no-any-return"
# ruff: noqa: D102

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Lambda(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Recurrent(nn.Module):
    """Embedded tokens through a recurrent layer: (n, 8) to (n, 5)."""

    def __init__(self, kind: Callable[..., nn.Module], **options: Any) -> None:
        super().__init__()
        self.embed = nn.Embedding(64, 16)
        self.cell = kind(16, 24, batch_first=True, **options)
        wide = options.get("proj_size") or 24
        self.head = nn.Linear(wide * (2 if options.get("bidirectional") else 1), 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(self.embed(x))[0][:, -1])


class Cells(nn.Module):
    """A recurrent cell, called step by step: (n, 6, 16) to (n, 24)."""

    def __init__(self, kind: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.cell, self.gated = kind(16, 24), kind is nn.LSTMCell

    def forward(self, x: Tensor) -> Tensor:
        state: Any = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return state[0] if self.gated else state


class UNet(nn.Module):
    """Down, up and across: (n, 3, 32, 32) to (n, 2, 32, 32)."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.down, self.deep = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.up = nn.ConvTranspose2d(32, 16, 2, 2) if mode == "transposed" else None
        self.join = nn.Conv2d(32 if self.up else 48, 2, 3, padding=1)
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.down(x))
        y = functional.relu(self.deep(functional.max_pool2d(x, 2)))
        y = self.up(y) if self.up else functional.interpolate(y, scale_factor=2.0, mode=self.mode)
        return self.join(torch.cat([x, y], 1))


class TemporalBlock(nn.Module):
    """A dilated causal convolution with a way round it."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.conv = nn.utils.parametrizations.weight_norm(
            nn.Conv1d(16, 16, 3, padding=2 * dilation, dilation=dilation)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + functional.relu(self.conv(x)[..., : x.shape[-1]])


class Transformer(nn.Module):
    """PyTorch's encoder and decoder: (n, 8) and (n, 6) to (n, 6, 64)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(64, 32)
        self.body = nn.Transformer(32, 4, 1, 1, 64, batch_first=True)
        self.head = nn.Linear(32, 64)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        mask = self.body.generate_square_subsequent_mask(target.shape[1])
        return self.head(self.body(self.embed(source), self.embed(target), tgt_mask=mask))


class VisionTransformer(nn.Module):
    """Patches, a class token and PyTorch's own encoder: (n, 3, 32, 32) to (n, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 32))
        self.place = nn.Parameter(torch.randn(1, 17, 32))
        layer = nn.TransformerEncoderLayer(
            32, 4, 64, batch_first=True, norm_first=True, activation="gelu"
        )
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place
        return self.head(self.body(x)[:, 0])


class Sampler(nn.Module):
    """A spatial transformer: (n, 3, 16, 16), turned and scaled by what a convolution sees."""

    def __init__(self) -> None:
        super().__init__()
        self.place, self.head = nn.Linear(192, 6), nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        theta = self.place(functional.avg_pool2d(x, 2).flatten(1)).reshape(-1, 2, 3)
        grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
        return self.head(functional.grid_sample(x, grid, align_corners=False))


class TwoTowers(nn.Module):
    """Users and items with bags of features: two scores and a table of them."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.EmbeddingBag(100, 16), nn.Embedding(100, 16)
        self.bilinear = nn.Bilinear(16, 16, 4)

    def forward(self, user: Tensor, item: Tensor) -> dict[str, Tensor]:
        left, right = self.users(user), self.items(item)
        cosine = functional.cosine_similarity(left, right)
        return {"cosine": cosine, "pairs": self.bilinear(left, right)}


class Graph(nn.Module):
    """A graph convolution on an adjacency matrix: (n, 6, 8) and (n, 6, 6) to (n, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        share = edges / edges.sum(-1, keepdim=True).clamp(min=1)
        return self.second(share @ functional.elu(self.first(share @ x))).amax(1)


class MixtureOfExperts(nn.Module):
    """The two best of four experts for each token: (n, 8, 16) to the same."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(16, 4)
        self.experts = nn.ModuleList(nn.Linear(16, 16) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.gate(x).softmax(-1).topk(2)
        every = torch.stack([expert(x) for expert in self.experts], 2)
        picked = every.gather(2, chosen[..., None].expand(-1, -1, -1, x.shape[-1]))
        return (weights[..., None] * picked).sum(2)


class Spectrogram(nn.Module):
    """Sound to a spectrogram to classes: (n, 512) to (n, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv1d(33, 16, 3), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        window = torch.hann_window(64)
        spectrum = torch.stft(x, 64, 32, window=window, return_complex=True).abs()
        return self.head(functional.gelu(self.body(torch.log1p(spectrum))).mean(-1))


class Written(nn.Module):
    """A layer's output put in a part of a tensor in place: (n, 16) to (n, 3, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 8), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.zeros(x.shape[0], 3, 8)
        y[:, 0], y[:, 2] = self.first(x), self.second(x)
        return y


class Detector(nn.Module):
    """The best of a grid of boxes by score: (n, 3, 32, 32) to (n, 5, 4) and (n, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 4, 1), nn.BatchNorm2d(16), nn.SiLU())
        self.boxes, self.scores = nn.Conv2d(16, 4, 1), nn.Conv2d(16, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        best, places = self.scores(x).flatten(1).sigmoid().topk(5)
        boxes = self.boxes(x).flatten(2).mT.exp()
        return boxes.gather(1, places[..., None].expand(-1, -1, 4)), best
