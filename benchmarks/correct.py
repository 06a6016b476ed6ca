"""Outputs corrected without labels: ``python -m benchmarks.correct --data DIR``.

ResNet-20 on CIFAR-10: k-means palettes of several kinds before and after ``dkm.correct_outputs`` on
training images, tested on all test images. BatchNorms are kept, or folded before clustering.
Weights under 1,000 values are dense.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import dkm_deploy as dkm
from benchmarks.methods.resnet20 import resnet20
from benchmarks.methods.subject import FULL, Subject, size_of
from benchmarks.process import cpu, versions


@dataclass(frozen=True)
class Case:
    """A row of the table."""

    name: str
    spec: dkm.PaletteSpec
    folded: bool = False


CASES = (
    Case("4 bits", dkm.PaletteSpec(4)),
    Case("3 bits", dkm.PaletteSpec(3)),
    Case("2 bits", dkm.PaletteSpec(2)),
    Case("2 bits, 4 channels a LUT", dkm.PaletteSpec(2, group_size=4)),
    Case("4 bits, vectors of 2", dkm.PaletteSpec(4, 2, 1)),
    Case("6 bits, vectors of 4", dkm.PaletteSpec(6, 4, 1)),
    Case("4 bits, BatchNorms folded", dkm.PaletteSpec(4), folded=True),
    Case("3 bits, BatchNorms folded", dkm.PaletteSpec(3), folded=True),
    Case("2 bits, BatchNorms folded", dkm.PaletteSpec(2), folded=True),
)


def main() -> None:
    """Print the table row by row."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seed", type=int, default=0, help="which training images")
    arguments = parser.parse_args()
    subject = resnet20(arguments.data, Path("out/correct"), FULL)
    folded = replace(subject, model=dkm.fold_batch_norm(subject.model, subject.example))
    print(f"{cpu()}; {versions('torch')}")
    print(f"fp32: {subject.score(subject.answers(subject.model)):.2f} %\n")
    print("| palettes | bits a weight | k-means | corrected | CPU s |\n|---|---|---|---|---|")
    for case in CASES:
        columns = row(folded if case.folded else subject, case, arguments.seed)
        print(f"| {' | '.join(columns)} |", flush=True)


def row(subject: Subject, case: Case, seed: int) -> Iterator[str]:
    """The columns of one row."""
    frozen = dkm.palettize(subject.model, subject.recipe(case.spec))
    start = time.process_time()
    corrected = dkm.correct_outputs(frozen, subject.model, subject.calibration(seed))
    spent = time.process_time() - start
    yield case.name
    yield f"{size_of(frozen).bits_per_weight:.2f}"
    yield from (f"{subject.score(subject.answers(model)):.2f}" for model in (frozen, corrected))
    yield f"{spent:.0f}"


if __name__ == "__main__":
    main()
