"""Bits where they count: ``python -m benchmarks.plan --data DIR``.

ResNet-20 on CIFAR-10 without any training, at the bytes of uniform recipes. For each budget:

- uniform: the same bits for every weight; its file sets the budget;
- greedy by PSNR: for each weight the fewest of 1, 2, 4, 6 and 8 bits with which the outputs keep
  a PSNR above a threshold, the rest of the model being as it was; the highest threshold whose file
  fits. That is how Apple's mixed-bit recipes are made (apple/ml-stable-diffusion);
- plan: ``dkm.plan`` with the same widths, and with all its candidates; plain and sensitive.

Losses are squared relative errors of the scores on 1,000 test images.
"""

from __future__ import annotations

import argparse
import io
import time
from dataclasses import astuple
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

import dkm_deploy as dkm
from benchmarks.process import cpu, versions
from benchmarks.resnet20 import Cifar, cifar, pretrained, top1
from dkm_deploy._support.measurement_cache import Cache
from dkm_deploy.planning.candidates import DEFAULT
from dkm_deploy.planning.module_subject import ModuleSubject
from dkm_deploy.planning.sizes import Scales
from dkm_deploy.post_training.loss_probe import LossProbe
from dkm_deploy.post_training.methods import KMeans

_WIDTHS = tuple(dkm.PaletteSpec(bits) for bits in (1, 2, 4, 6, 8))
_QUIET = Console(file=io.StringIO())


def main() -> None:
    """Print a table for each target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--images", type=int, default=256, help="of calibration")
    parser.add_argument("--test-images", type=int, default=10_000)
    parser.add_argument("--bits", type=int, nargs="+", default=[6, 4, 3, 2])
    parser.add_argument("--cache", type=Path, default=Path("out/plan.cache"))
    parser.add_argument("--target", default="coreml")
    arguments = parser.parse_args()
    bench = Bench(arguments.data, arguments.images, arguments.cache, arguments.target)
    bench.test = Cifar(*(part[: arguments.test_images] for part in astuple(bench.test)))
    print(f"{cpu()}; {versions('torch', 'coremltools', 'onnx')}")
    print(f"fp32: {top1(bench.model, bench.test):.2f} %; target {arguments.target}")
    print("\n| budget, bytes | recipe | bytes | predicted off by | loss | top-1, % | CPU s |")
    print("|---|---|---|---|---|---|---|")
    budgets = {bits: bench.uniform_bytes(bits) for bits in arguments.bits}
    for bits, budget in budgets.items():
        bench.row(budget, f"uniform, {bits} bits", bench.uniform(bits))
        bench.row(budget, "greedy by PSNR, 1 2 4 6 8 bits", bench.greedy(budget))
        bench.planned(budget, "plan, 1 2 4 6 8 bits", _WIDTHS, "kmeans")
        bench.planned(budget, "plan", DEFAULT, "kmeans")
    for bits, budget in budgets.items():
        bench.row(budget, f"uniform, {bits} bits, sensitive", bench.uniform(bits), "sensitive")
        bench.planned(budget, "plan, sensitive", DEFAULT, "sensitive")


class Bench:
    """The model, its data and what was measured of them."""

    def __init__(self, data: Path, images: int, cache: Path, target: str) -> None:
        self.model: nn.Module = pretrained(data)
        self.test: Cifar = cifar(data, "test")
        train = cifar(data, "train")
        order = torch.randperm(len(train.labels), generator=torch.Generator().manual_seed(0))
        self.calibration = [train.batch(index)[0] for index in torch.split(order[:images], 16)]
        self.target, self.cache = target, cache
        self.names = list(dkm.Recipe(dkm.PaletteSpec(1)).assign(self.model).specs)
        self.probe = LossProbe(self.model, self.calibration, None)
        subject = ModuleSubject(self.model, self.probe, KMeans(), self.calibration[0][:1])
        self.scales = Scales(subject, Cache(cache))
        held_out = self.test.batch(torch.arange(1000))[0]
        self._held_out, self._expected = held_out, self.model(held_out).detach()
        self._losses: dict[tuple[str, dkm.PaletteSpec], float] = {}

    def uniform(self, bits: int) -> dict[str, dkm.PaletteSpec]:
        """The same palette for every weight."""
        return dict.fromkeys(self.names, dkm.PaletteSpec(bits))

    def uniform_bytes(self, bits: int) -> int:
        """Of its file."""
        return self.scales.weigh(self.target, self.uniform(bits)).total

    def row(
        self,
        budget: int,
        name: str,
        specs: dict[str, dkm.PaletteSpec],
        method: str = "kmeans",
        off: str = "-",
        spent: str = "-",
    ) -> None:
        """Print the row of a recipe, given as specs by name."""
        recipe = dkm.Recipe(rules=[dkm.Rule(n, spec=s) for n, s in specs.items()])
        data = self.calibration if method == "sensitive" else None
        frozen = dkm.palettize(self.model, recipe, method, data)
        size = self.scales.weigh(self.target, specs).total
        with torch.no_grad():
            gap = (frozen(self._held_out) - self._expected).square().sum()
        loss = float(gap / self._expected.square().sum())
        figures = f"{size:,} | {off} | {loss:.5f} | {top1(frozen, self.test):.2f} | {spent}"
        print(f"| {budget:,} | {name} | {figures} |", flush=True)

    def planned(
        self, budget: int, name: str, candidates: tuple[dkm.PaletteSpec, ...], method: str
    ) -> None:
        """The row of ``dkm.plan``."""
        start = time.process_time()
        found = dkm.plan(
            self.model,
            budget,
            (self.target,),
            self.calibration,
            method=method,
            candidates=candidates,
            cache=self.cache,
            console=_QUIET,
        )
        spent = f"{time.process_time() - start:.0f}"
        size = found.size_bytes[self.target]
        off = f"{100 * (found.predicted_bytes - size) / size:+.2f} %"
        specs = {made.name: made.spec for made in found.decisions if made.spec is not None}
        self.row(budget, name, specs, method, off, spent)

    def greedy(self, budget: int) -> dict[str, dkm.PaletteSpec]:
        """The specs of the highest threshold that fits.

        On one set of outputs the PSNR falls with their squared error alone, so that a threshold
        on it is one on the loss.
        """
        if not self._losses:
            for spec in _WIDTHS:
                made = KMeans().palettes(self.model, dict.fromkeys(self.names, spec), None)
                self._losses |= {
                    (name, spec): self.probe.loss(name, torch.tensor(palette.decode()))
                    for name, palette in made
                }
        thresholds = sorted(self._losses.values())
        low, high = 0, len(thresholds) - 1
        while low < high:
            middle = (low + high) // 2
            size = self.scales.weigh(self.target, self._above(thresholds[middle])).total
            low, high = (low, middle) if size <= budget else (middle + 1, high)
        return self._above(thresholds[low])

    def _above(self, threshold: float) -> dict[str, dkm.PaletteSpec]:
        """For each weight the fewest bits whose loss is within the threshold, or 8."""
        return {
            name: next((s for s in _WIDTHS if self._losses[name, s] <= threshold), _WIDTHS[-1])
            for name in self.names
        }


if __name__ == "__main__":
    main()
