"""Spoken digits of ``--data`` as log-mel features, and two networks that know them.

The networks are a depthwise separable CNN, as DS-CNN of Zhang et al. 2017 ("Hello Edge"), and a
bidirectional GRU, the kind of layer that DeepSpeech 2 has. Both are trained here, in minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from dkm_deploy.errors import MissingFileError

BANDS, FRAMES, CLASSES = 40, 49, 10
_RATE, _SAMPLES = 8_000, 8_000  # a second
_WINDOW, _HOP, _TRANSFORM = 240, 160, 256  # 30 and 20 ms
_TEST_INDEX = 5  # of a speaker's fifty takes of a digit, as the data's authors split it
_BATCH, _EPOCHS, _LEARNING_RATE = 64, 24, 2e-3


@dataclass(frozen=True)
class Clips:
    """Waveforms float32 ``(n, 8000)`` in -1..1 and digits int64 ``(n,)``."""

    waves: Tensor
    labels: Tensor


class DSCNN(nn.Module):
    """Features ``(n, 1, 49, 40)`` to scores ``(n, 10)``; 119,000 parameters."""

    def __init__(self, width: int = 160, blocks: int = 4) -> None:
        super().__init__()
        self.stem = _normed(nn.Conv2d(1, width, (10, 4), (2, 2), (5, 1), bias=False))
        self.blocks = nn.Sequential(*(_separable(width) for _ in range(blocks)))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Scores ``(n, 10)``."""
        scores: Tensor = self.head(self.blocks(self.stem(x)).mean((2, 3)))
        return scores


class GRUNet(nn.Module):
    """Features ``(n, 1, 49, 40)`` to scores ``(n, 10)``; 431,000 parameters."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.gru = nn.GRU(BANDS, width, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Scores ``(n, 10)``."""
        steps, _ = self.gru(x.flatten(1, 2))
        scores: Tensor = self.head(steps.mean(1))
        return scores


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {"ds-cnn": DSCNN, "gru": GRUNet}


def clips(data: Path) -> tuple[Clips, Clips]:
    """Clips to train on and to test on, 2,700 and 300."""
    path = data / "fsdd" / "fsdd_8k.npz"
    if not path.exists():
        raise MissingFileError(f"{path}: not there; give the data folder with --data")
    with np.load(path) as kept:
        pcm, lengths, names = kept["pcm"], kept["length"], kept["name"]
    ends = np.cumsum(lengths)
    waves = np.zeros((len(names), _SAMPLES), np.float32)
    for row, end, length in zip(waves, ends, lengths, strict=True):
        taken = pcm[end - length : end][:_SAMPLES] / 2**15
        row[: len(taken)] = taken / (np.abs(taken).max() + 1e-6)
    digit, index = np.array([(n.split("_")[0], n.split("_")[2]) for n in names], int).T
    test = torch.from_numpy(index < _TEST_INDEX)
    everything, labels = torch.from_numpy(waves), torch.from_numpy(digit)
    return Clips(everything[~test], labels[~test]), Clips(everything[test], labels[test])


def features(waves: Tensor) -> Tensor:
    """Log-mel features ``(n, 1, 49, 40)`` of waveforms ``(n, 8000)``."""
    spectrum = torch.stft(
        waves, _TRANSFORM, _HOP, _WINDOW, torch.hann_window(_WINDOW), center=False,
        return_complex=True,
    )  # fmt: skip
    power = spectrum.abs().square().transpose(1, 2)
    mel = torch.log(power @ torch.from_numpy(_mel_filters()) + 1e-5)
    return (mel[:, None, :FRAMES] + 4) / 4


def moved(waves: Tensor, generator: torch.Generator) -> Tensor:
    """Each waveform shifted by up to an eighth of a second, with a little noise."""
    shifts = torch.randint(0, _SAMPLES // 8, (len(waves), 1), generator=generator)
    places = (torch.arange(_SAMPLES) - shifts).clamp(0)
    shifted = torch.gather(functional.pad(waves, (1, 0)), 1, places)
    loudness = 0.02 * torch.rand(len(waves), 1, generator=generator)
    return shifted + loudness * torch.randn(waves.shape, generator=generator)


def steps_of(train: Clips) -> int:
    """Batches of an epoch."""
    return len(train.labels) // _BATCH


def batches(train: Clips, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Features and labels of an epoch."""
    generator = torch.Generator().manual_seed(seed)
    for index in torch.split(torch.randperm(len(train.labels), generator=generator), _BATCH):
        if len(index) == _BATCH:
            yield features(moved(train.waves[index], generator)), train.labels[index]


def pretrained(name: str, train: Clips, folder: Path) -> nn.Module:
    """The fp32 network, in eval mode; trained at the first call, and kept in ``folder``."""
    torch.manual_seed(0)
    model, path = NETWORKS[name](), folder / f"{name}.safetensors"
    if path.exists():
        model.load_state_dict(load_file(path))
        return model.eval()
    optimizer = torch.optim.AdamW(model.parameters(), _LEARNING_RATE, weight_decay=1e-2)
    steps = _EPOCHS * steps_of(train)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(_EPOCHS):
        for inputs, labels in batches(train, epoch):
            loss = functional.cross_entropy(model(inputs), labels)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), path)
    return model.eval()


def _normed(layer: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU())


def _separable(width: int) -> nn.Sequential:
    depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
    return nn.Sequential(_normed(depthwise), _normed(nn.Conv2d(width, width, 1, bias=False)))


def _mel_filters() -> NDArray[np.float32]:
    """Triangles on the mel scale ``(129, 40)``, from 20 Hz to 4 kHz."""
    top = 2595 * np.log10(1 + _RATE / 2 / 700)
    bottom = 2595 * np.log10(1 + 20 / 700)
    corners = 700 * (10 ** (np.linspace(bottom, top, BANDS + 2) / 2595) - 1)
    bins = np.arange(_TRANSFORM // 2 + 1)[:, None] * _RATE / _TRANSFORM
    left, middle, right = corners[:-2], corners[1:-1], corners[2:]
    rising, falling = (bins - left) / (middle - left), (right - bins) / (right - middle)
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
