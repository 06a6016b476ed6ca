"""Which learning rate does DKM bear? ``python -m benchmarks.rates --data DIR``.

ResNet-20 on CIFAR-10, distilled from fp32 for the same steps on the same images, without palettes
and with them, at several rates and temperatures, gradients clipped or not. Hard top-1 on the test
images.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from dataclasses import replace
from pathlib import Path

import torch

import dkm_deploy as dkm
from benchmarks.distil import distil
from benchmarks.methods.resnet20 import resnet20
from benchmarks.methods.subject import Effort, Subject
from benchmarks.methods.training import trained
from benchmarks.process import cpu, versions

_TEST_IMAGES, _BATCH = 10_000, 64
_ROWS: tuple[tuple[int | None, float | None], ...] = (
    (None, None), (2, None), (4, None), (4, 0.003125), (8, None),
)  # fmt: skip
"""Bits, or None for no palettes; temperature, or None for the default."""
_COLUMNS = ((0.02, math.inf), (0.02, 1.0), (0.005, math.inf))
"""Rate, and the largest norm of a gradient."""


def main() -> None:
    """Train in each way and print a row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    effort = Effort(_TEST_IMAGES, 1, arguments.steps, _BATCH)
    subject = resnet20(arguments.data, Path("out/rates"), effort)
    print(f"{cpu()}; {versions('torch')}; fp32 {subject.score(subject.answers(subject.model)):.2f}")
    titles = (
        f"{rate}" + (f", clipped at {clip}" if clip < math.inf else "") for rate, clip in _COLUMNS
    )
    print(f"\n| palettes | {' | '.join(titles)} | CPU s |")
    print("|---" * (len(_COLUMNS) + 2) + "|")
    for bits, temperature in _ROWS:
        start = time.process_time()
        tops = [
            _top1(_at(subject, rate, clip), bits, temperature, arguments.seed)
            for rate, clip in _COLUMNS
        ]
        spent = time.process_time() - start
        scores = " | ".join(f"{top:.2f}" for top in tops)
        print(f"| {_name(bits, temperature)} | {scores} | {spent:.0f} |", flush=True)


def _name(bits: int | None, temperature: float | None) -> str:
    if bits is None:
        return "none"
    return f"{bits} bits" + ("" if temperature is None else f", temperature {temperature}")


def _at(subject: Subject, rate: float, clip: float) -> Subject:
    """The same with another rate and largest norm of a gradient."""
    return replace(subject, course=lambda seed: replace(subject.course(seed), rate=rate, clip=clip))


def _top1(subject: Subject, bits: int | None, temperature: float | None, seed: int) -> float:
    """Of a trained model, in percent."""
    if bits is None:
        model = copy.deepcopy(subject.model)
        distil(model, subject.course(seed), lambda: None)
        return subject.score(subject.answers(model.eval()))
    method = dkm.DKM(temperature=temperature)
    made = trained(subject, dkm.PaletteSpec(bits), seed, method=method)
    return subject.score(subject.answers(made))


if __name__ == "__main__":
    main()
