"""DKM: differentiable k-means as a training method."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch
from torch import Tensor

from dkm_deploy._support.argument_checks import integer, real
from dkm_deploy.clustering.dkm.soft_cluster import GRADIENTS, Gradient, soft_cluster
from dkm_deploy.errors import DkmError
from dkm_deploy.palette_spec import PaletteSpec


@dataclass(frozen=True)
class DKM:
    """Differentiable k-means (Cho et al., ICLR 2022, arXiv 2108.12659).

    Attributes:
        temperature: temperature tau, divided by the variance of the layer's weights. None is 0.05
            for 2 bits per value, four times that for each bit less, 0.025 for 3 bits, 0.0125 for 4
            bits, and a quarter for each bit more. It is then halved for a layer until its centroids
            stay apart. A value that you set is never changed; where centroids would merge, it is
            refused.
        tau_absolute: temperature in squared weight units, as in the paper (2e-5 for ResNet-18 at 2
            bits). It replaces ``temperature``. For a weight with a per-channel scale, the unit is
            that scale.
        iterations: k-means iterations in each forward pass. Centroids are kept from step to step,
            so one iteration is enough (Appendix E of the paper).
        gradient: how gradients pass through the centroids: "unrolled", "implicit" or "one_step";
            see :func:`dkm_deploy.clustering.dkm.soft_cluster.soft_cluster`.

    Raises:
        DkmError: a value is out of range, or both temperatures are given.

    Example:
        >>> model = dkm.prepare(nn.Linear(8, 4), 2, method=dkm.DKM(temperature=0.02))
        >>> round(dkm.status(model)["weight"].temperature, 4)
        0.02
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
