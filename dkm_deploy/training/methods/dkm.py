"""DKM: differentiable k-means as a training method."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch
from torch import Tensor

from dkm_deploy._support.argument_checks import integer, real
from dkm_deploy.clustering.dkm.soft_cluster import GRADIENTS, Gradient, soft_cluster
from dkm_deploy.errors import DkmError
from dkm_deploy.recipe import PaletteSpec


@dataclass(frozen=True)
class DKM:
    """Differentiable k-means.

    Attributes:
        temperature: tau over the variance of the layer's weights. None takes 0.05 at 2 bits a
            value, four times that for each bit less; 0.025 at 3, 0.0125 at 4, and a quarter for
            each bit more. It is halved for a layer until its centroids stay apart. One that you
            set is never changed, but refused where centroids would run together.
        tau_absolute: a temperature in squared weight units, as the paper has it (2e-5 for
            ResNet-18 at 2 bits); in place of ``temperature``. A weight with a per-channel scale
            counts in units of that scale.
        iterations: of k-means in each forward pass. The centroids carry over from step to step,
            so that one serves (the paper's Appendix E).
        gradient: how the centroids pass gradients on: "unrolled", "implicit" or "one_step"; see
            :func:`dkm_deploy.clustering.dkm.soft_cluster.soft_cluster`.
    """

    temperature: float | None = None
    tau_absolute: float | None = None
    iterations: int = 1
    gradient: Gradient = "unrolled"

    def __post_init__(self) -> None:
        for name in ("temperature", "tau_absolute"):
            value = getattr(self, name)
            if value is not None:
                real(name, value, above=0, most=sys.float_info.max)
        if self.temperature is not None and self.tau_absolute is not None:
            raise DkmError("give temperature or tau_absolute, not both")
        integer("iterations", self.iterations, 1)
        if self.gradient not in GRADIENTS:
            raise DkmError(
                f"gradient is {self.gradient!r}; it must be one of {', '.join(GRADIENTS)}"
            )

    @property
    def automatic(self) -> bool:
        """Whether no temperature was given."""
        return self.temperature is None and self.tau_absolute is None

    def tau(self, variance: Tensor, spec: PaletteSpec) -> Tensor:
        """Temperature of each group, ``(groups,)``."""
        if self.tau_absolute is not None:
            return torch.full_like(variance, self.tau_absolute)
        if self.temperature is not None:
            return self.temperature * variance
        return _relative(spec.bits / spec.cluster_dim) * variance

    def soften(self, vectors: Tensor, centroids: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
        """See :func:`dkm_deploy.clustering.dkm.soft_cluster.soft_cluster`."""
        return soft_cluster(vectors, centroids, tau, self.iterations, self.gradient)


def _relative(bits: float) -> float:
    """The default of tau over the variance, by the bits of a value.

    The squared distance of centroids falls by four with each bit, and so does the temperature at
    which a width is as soft as another. But a weight between two centroids feels its gradient up
    to ``distance**2 / (2 * tau)`` times, and what softness costs falls with the bits: from 4 bits
    on it is four times as soft, about as far as Gaussian centroids bear without drifting.
    """
    relative: float = 0.05 * 4.0 ** (2 - bits) * min(4.0, max(1.0, 2.0 ** (bits - 2)))
    return relative
