"""What several commands ask of a model."""

from __future__ import annotations

import argparse
from pathlib import Path

MODEL = (
    "package.module:callable that returns a torch.nn.Module (the current folder is searched), or a "
    ".pt2 file that torch.export.save wrote; both run code, so open none that you do not trust"
)
SAMPLES = (
    "safetensors file of samples: inputs by their names in forward() (a single input by any name), "
    "and labels if known"
)
INPUT = (
    "shape of an input, such as 1x3x224x224 or 1x128:int64; repeat it for each input. The default "
    "for a .pt2 file is its own inputs, dynamic dimensions included"
)
METRIC = (
    "package.module:callable, metric(first output, labels), more is better; the labels are those "
    "of the file of inputs"
)


def add_model(parser: argparse.ArgumentParser) -> None:
    """The model, and its weights."""
    parser.add_argument("model", help=MODEL)
    parser.add_argument(
        "--weights", type=Path, help="safetensors checkpoint; a .pt2 file has its own if left out"
    )
