"""A keyword spotter: train it, cluster it while it trains on, write its files and prove them.

python keyword_spotting.py fsdd_8k.npz   # spoken digits
python keyword_spotting.py --small       # ten made-up sounds and a smaller network, in a minute
"""

import argparse
import copy
import math
from functools import partial
from pathlib import Path

import torch
from data import features, sounds, spoken_digits
from torch import nn
from torch.nn import functional

import dkm_deploy as dkm

BATCH = 32


class KeywordNet(nn.Module):
    """A depthwise separable CNN: features (n, 1, 49, 32) to scores (n, 10)."""

    def __init__(self, width: int = 128, blocks: int = 4) -> None:
        super().__init__()

        def normed(layer):
            return [layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU()]

        layers = normed(nn.Conv2d(1, width, (10, 4), (2, 2), (5, 1), bias=False))
        for _ in range(blocks):
            layers += normed(nn.Conv2d(width, width, 3, 1, 1, groups=width, bias=False))
            layers += normed(nn.Conv2d(width, width, 1, bias=False))
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(width, 10)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(features).mean((2, 3)))


def batches(waves, digits, epoch: int):
    """Features and digits of an epoch, shifted by chance."""
    torch.manual_seed(epoch)
    for index in torch.randperm(len(waves)).split(BATCH):
        shift = int(torch.randint(-400, 400, ()))
        yield features(torch.roll(waves[index], shift, 1)), digits[index]


def train(model: nn.Module, waves, digits, epochs: int) -> nn.Module:
    """Plain training at full precision."""
    optimizer = torch.optim.AdamW(model.parameters())
    steps = epochs * math.ceil(len(waves) / BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, steps)
    for epoch in range(epochs):
        for inputs, labels in batches(waves, digits, epoch):
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def main() -> None:
    """Train, cluster, convert, validate."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("keyword-spotting"))
    arguments = parser.parse_args()
    if not (arguments.small or arguments.data):
        parser.error("give fsdd_8k.npz, or --small")
    waves, digits, test_waves, test_digits = (
        sounds() if arguments.small else spoken_digits(arguments.data)
    )
    torch.manual_seed(0)
    epochs, model = (12, KeywordNet(32, 2)) if arguments.small else (20, KeywordNet())
    original = train(model, waves, digits, epochs)

    # Two bits for the large layers, four for the small ones; what has under 500 values stays dense.
    rules = [dkm.Rule(max_elements=500, skip=True), dkm.Rule(max_elements=8_000, spec=4)]
    clustered = dkm.prepare(copy.deepcopy(original), dkm.Recipe(default=2, rules=rules))
    optimizer = torch.optim.AdamW(clustered.parameters(), 1e-3)
    dkm.fit(
        clustered,
        partial(batches, waves, digits),
        epochs=epochs,
        optimizer=optimizer,
        teacher=original,
        clip_norm=1.0,
    )
    frozen = dkm.freeze(clustered)

    arguments.out.mkdir(exist_ok=True)
    files = [arguments.out / "keywords.onnx", arguments.out / "keywords.mlpackage"]
    inputs = features(test_waves)
    for path in files:
        dkm.convert(frozen, {"features": inputs[:1]}, path, force=True)
    report = dkm.validate(
        files, reference=frozen, original=original, inputs=inputs, labels=test_digits
    )
    report.to_html(arguments.out / "report.html", force=True)
    for row in report.models:
        print(f"{row.name}: {row.metric:.2f} % right, {row.size_bytes:,} bytes")
    print("passed" if report else f"failed: {report.failed}")


if __name__ == "__main__":
    main()
