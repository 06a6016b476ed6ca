"""On how many images squared gradients rest: ``python -m benchmarks.gradient_shares --data DIR``.

Sensitive k-means weights by squared gradients. For draws of 256 training images of CIFAR-10 and
ResNet-20: how they are spread over the images, by the labels' cross entropy and by the outputs
with random signs. The effective number is ``(sum of s)**2 / sum of s**2`` for the squared norms
``s`` of the images' gradients: 256 if all are alike, 1 if one image has them all.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

import dkm_deploy as dkm
from benchmarks.methods.resnet20 import resnet20
from benchmarks.methods.subject import QUICK, Subject
from benchmarks.process import cpu, versions

_DRAWS = 3

Loss = Callable[[Tensor, Tensor], Tensor]


def main() -> None:
    """Print the table, a row for each draw and loss."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()
    subject = resnet20(arguments.data, Path("out/gradient_shares"), QUICK)
    print(f"{cpu()}; {versions('torch')}\n")
    print("| draw | loss | images | effective number | share of the largest 3 |")
    print("|---|---|---|---|---|")
    torch.manual_seed(0)
    losses: dict[str, Loss] = {"labels": functional.cross_entropy, "outputs": _signed}
    for seed in range(_DRAWS):
        for name, loss in losses.items():
            squares = torch.tensor(list(_squares(subject, seed, loss)))
            effective = squares.sum().square() / squares.square().sum()
            share = 100 * squares.topk(3).values.sum() / squares.sum()
            print(f"| {seed} | {name} | {len(squares)} | {effective:.1f} | {share:.0f} % |")


def _squares(subject: Subject, seed: int, loss: Loss) -> Iterator[float]:
    """The squared norm of each image's gradient, over the weights that get palettes."""
    parameters = dict(subject.model.named_parameters())
    weights = [parameters[name] for name in subject.specs(dkm.PaletteSpec(2))]
    for images, labels in subject.calibration(seed):
        for image, label in zip(images, labels, strict=True):
            scores = subject.model(image[None])
            gradients = torch.autograd.grad(loss(scores, label[None]), weights)
            yield sum(float(gradient.double().square().sum()) for gradient in gradients)


def _signed(scores: Tensor, _labels: Tensor) -> Tensor:
    norm: Tensor = scores.detach().norm()
    return ((2 * torch.randint(0, 2, scores.shape) - 1) * scores).sum() / norm


if __name__ == "__main__":
    main()
