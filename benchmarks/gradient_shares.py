"""On how many images squared gradients rest: ``python -m benchmarks.gradient_shares --data DIR``.

Sensitive k-means weights by squared gradients. For draws of 256 training images of CIFAR-10 and
ResNet-20: how they are spread over the images, by the labels' cross entropy and by the outputs
with random signs. The effective number is ``(sum of s)**2 / sum of s**2`` for the squared norms
``s`` of the images' gradients: 256 if all are alike, 1 if one image has them all.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch

import dkm_deploy as dkm
from benchmarks.methods.peers import loss_of
from benchmarks.methods.resnet20 import resnet20
from benchmarks.methods.subject import QUICK, Subject
from benchmarks.process import cpu, versions

_DRAWS = 3


def main() -> None:
    """Print the table, a row for each draw and loss."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()
    subject = resnet20(arguments.data, Path("out/gradient_shares"), QUICK)
    print(f"{cpu()}; {versions('torch')}\n")
    print("| draw | loss | images | effective number | share of the largest 3 |")
    print("|---|---|---|---|---|")
    for seed in range(_DRAWS):
        for name in ("labels", "outputs"):
            squares = torch.tensor(list(_squares(subject, seed, labelled=name == "labels")))
            effective = squares.sum().square() / squares.square().sum()
            share = 100 * squares.topk(3).values.sum() / squares.sum()
            print(f"| {seed} | {name} | {len(squares)} | {effective:.1f} | {share:.0f} % |")


def _squares(subject: Subject, seed: int, *, labelled: bool) -> Iterator[float]:
    """The squared norm of each image's gradient, over the weights that get palettes."""
    parameters = dict(subject.model.named_parameters())
    weights = [parameters[name] for name in subject.specs(dkm.PaletteSpec(2))]
    loss = loss_of(seed)
    for images, labels in subject.calibration(seed):
        for image, label in zip(images, labels, strict=True):
            scores = subject.model(image[None])
            gradients = torch.autograd.grad(
                loss(scores, label[None] if labelled else None), weights
            )
            yield sum(float(gradient.double().square().sum()) for gradient in gradients)


if __name__ == "__main__":
    main()
