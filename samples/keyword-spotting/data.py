"""Sounds of a second as features: spoken digits, or tones in their place."""

import math
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

RATE, CLASSES = 8_000, 10


def features(waves: torch.Tensor) -> torch.Tensor:
    """Logarithms of 32 bands of 49 short spectra, of waves of one second."""
    window = torch.hann_window(240)
    spectra = torch.stft(waves, 256, 160, 240, window, center=False, return_complex=True)
    bands = functional.adaptive_avg_pool1d(spectra.abs().square().transpose(1, 2)[..., :128], 32)
    return (torch.log(bands + 1e-5)[:, None] + 4) / 4


def spoken_digits(path: Path) -> tuple[torch.Tensor, ...]:
    """Waves and digits to train on, then to test on: the first five takes of every speaker."""
    with np.load(path) as kept:
        pcm, lengths, names = kept["pcm"], kept["length"], kept["name"]
    waves, end = np.zeros((len(names), RATE), np.float32), 0
    for row, length in zip(waves, lengths, strict=True):
        taken = pcm[end : end + length][:RATE].astype(np.float32)
        row[: len(taken)] = taken / (np.abs(taken).max() + 1e-6)
        end += length
    digits = torch.tensor([int(name.split("_")[0]) for name in names])
    test = torch.tensor([int(name.split("_")[2]) < 5 for name in names])
    waves = torch.from_numpy(waves)
    return waves[~test], digits[~test], waves[test], digits[test]


def sounds() -> tuple[torch.Tensor, ...]:
    """Ten gliding tones in noise, in place of words."""
    generator = torch.Generator().manual_seed(0)
    digits = torch.arange(400) % CLASSES
    time = torch.linspace(0, 1, RATE)
    first = 200 + 150 * digits[:, None] + 20 * torch.randn(400, 1, generator=generator)
    waves = torch.sin(2 * math.pi * (first * time + 400 * time**2))
    waves += 0.3 * torch.randn(waves.shape, generator=generator)
    return waves[:300], digits[:300], waves[300:], digits[300:]
