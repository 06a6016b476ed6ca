"""Which gradient of the centroids serves accuracy? ``python -m benchmarks.gradients --data DIR``.

ResNet-20 on CIFAR-10 at 2 bits, fine-tuned from fp32 with each method for the same steps on the
same images in the same order, distilled from the fp32 model. Hard top-1 on the test images.
"""

from __future__ import annotations

import argparse
import copy
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

import dkm_deploy as dkm
from benchmarks.distil import Course, distil, scores, sgd
from benchmarks.resnet20 import Cifar, ResNet20, augmented, cifar, normalised, pretrained, top1
from dkm_deploy.training.methods.protocol import Method

METHODS: dict[str, Method] = {
    "DKM, 1 iteration": dkm.DKM(),
    "DKM, 3 iterations, unrolled": dkm.DKM(iterations=3),
    "DKM, 3 iterations, one step": dkm.DKM(iterations=3, gradient="one_step"),
    "DKM, 3 iterations, implicit": dkm.DKM(iterations=3, gradient="implicit"),
    "hard, straight-through": dkm.HardSTE(),
    "hard, EWGS 1e-3": dkm.HardSTE(scaling=1e-3),
}
_BATCH, _RATE = 128, 0.005


def main() -> None:
    """Train with each method and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--images", type=int, default=50_000, help="training images seen")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    teacher, test = pretrained(arguments.data), cifar(arguments.data, "test")
    train = cifar(arguments.data, "train")
    recipe = dkm.Recipe(
        default=dkm.PaletteSpec(bits=2),
        rules=[dkm.Rule(max_elements=1_000, spec=dkm.PaletteSpec(bits=8))],
    )
    recipe = dkm.Recipe(recipe.default, [dkm.Rule("conv1.weight", skip=True), *recipe.rules])
    print(f"{platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}")
    print(f"fp32: {top1(teacher, test):.2f} %")
    print(f"k-means, no training: {top1(dkm.palettize(teacher, recipe), test):.2f} %")
    print("\n| method | seed | hard top-1, % | soft top-1, % | CPU s |\n|---|---|---|---|---|")
    for seed in range(arguments.seeds):
        for name, method in METHODS.items():
            start = time.process_time()
            model = _trained(teacher, recipe, method, train, arguments.images, seed)
            spent = time.process_time() - start
            hard, soft = top1(dkm.freeze(model), test), top1(dkm.soft_copy(model), test)
            print(f"| {name} | {seed} | {hard:.2f} | {soft:.2f} | {spent:.0f} |")
            sys.stdout.flush()


def _trained(
    teacher: ResNet20, recipe: dkm.Recipe, method: Method, train: Cifar, images: int, seed: int
) -> torch.nn.Module:
    model = copy.deepcopy(teacher)
    dkm.prepare(model, recipe, method)
    generator = torch.Generator().manual_seed(seed)
    order = torch.cat(
        [
            torch.randperm(len(train.labels), generator=generator)
            for _ in range(1 + images // 50_000)
        ]
    )
    batches = torch.split(order[:images], _BATCH)

    def _lessons() -> Iterator[tuple[Tensor, Tensor]]:
        for index in batches:
            x = normalised(augmented(train.images[index], generator))
            with torch.no_grad():
                taught = teacher(x)
            yield x, taught

    course = Course(_lessons(), len(batches), scores, sgd, _RATE, norms=True)
    distil(model, course, lambda: dkm.step(model))
    return model


if __name__ == "__main__":
    main()
