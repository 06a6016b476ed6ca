"""Gradient-weighted k-means: weights that train at 8 bits and are snapped to a palette at times."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from dkm_deploy._support.argument_checks import integer, real
from dkm_deploy.clustering.kmeans.kmeans import kmeans
from dkm_deploy.clustering.quantizers.eight_bit import at_eight_bits
from dkm_deploy.errors import DkmError
from dkm_deploy.training.methods.protocol import HardMethod

Gradients = Literal["mean", "last", "none"]


@dataclass(frozen=True)
class GWK(HardMethod):
    """Gradient-weighted k-means (Sakthi, Yadla and Pawate 2022, arXiv 2210.05111).

    The forward pass uses the weights rounded to 8 bits, with the gradient of EWGS. Every ``every``
    steps the weights are clustered again: the centroid of a cluster is ``c = sum(s w) / sum(s)``
    over its members, where s is the mean gradient magnitude of a vector. Then each weight is set to
    its centroid. As in the authors' code this changes the parameter itself, so that the next steps
    start from there and a checkpoint holds it. The norm by which the authors divide s cancels out.
    Eval mode and :func:`dkm_deploy.freeze` use the nearest of the last centroids; if no step came
    after the last clustering, this changes nothing.

    ``dkm.step`` reads the gradients: call it after ``optimizer.step()`` and before ``zero_grad()``.

    For less than one bit per weight use vectors: ``PaletteSpec(bits=7, cluster_dim=8, axis=1)`` has
    vectors of 8 input channels at one kernel position of one output channel. The authors' vectors
    of 6 or 12 values cover several positions of a 3x3 kernel. A palette cannot hold those, because
    a LUT entry fills one dimension of the weight. :func:`dkm_deploy.quantize_luts` quantizes the
    centroids to 8 bits, on the grid that training used.

    Attributes:
        every: steps between two clusterings; 196 steps are an epoch of CIFAR-10 at the authors'
            batch size.
        gradients: "mean" weights by all gradients since the last clustering, "last" by the gradient
            of the last step (as in the authors' code), "none" weights all values alike.
        scaling: delta of EWGS.

    Raises:
        DkmError: a value is out of range.

    Example:
        >>> model = dkm.prepare(nn.Linear(8, 4), 2, method=dkm.GWK(every=1))
        >>> model(torch.ones(1, 8)).sum().backward()
        >>> dkm.step(model)
        >>> len(model.parametrizations.weight.original.unique())
        4
    """

    every: int = 200
    gradients: Gradients = "mean"
    scaling: float = 1e-3

    def __post_init__(self) -> None:
        integer("every", self.every, 1)
        if self.gradients not in get_args(Gradients):
            raise DkmError(
                f"gradients is {self.gradients!r}; it must be one of "
                f"{', '.join(get_args(Gradients))}"
            )
        real("scaling", self.scaling, least=0, most=sys.float_info.max)

    def soften(self, vectors: Tensor, centroids: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors at 8 bits, and the centroids as they are until the next snap."""
        return at_eight_bits(vectors, self.scaling), centroids

    def update_importance(self, importance: Tensor, gradient: Tensor) -> Tensor:
        """Importance after a step's gradient; a sum, for only ratios count."""
        if self.gradients == "none":
            return importance
        # Mixed precision leaves gradients that are not finite where it skipped the step.
        size = gradient.abs().nan_to_num(0, 0, 0)
        return size if self.gradients == "last" else importance + size

    def snap(self, vectors: Tensor, importance: Tensor, clusters: int) -> Tensor:
        """Centroids weighted by gradients; plain k-means where no gradient came."""
        # On the CPU, where sums have one order: processes that share the weights find the same.
        weights = importance.mean(2, keepdim=True).expand_as(vectors).cpu()
        return kmeans(vectors.cpu(), clusters, weights=weights).to(vectors.device)
