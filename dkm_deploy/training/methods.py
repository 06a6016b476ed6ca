"""Ways to train a palette. A method turns a weight into what the forward pass uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from dkm_deploy.clustering.dkm import soft_cluster
from dkm_deploy.errors import DkmError
from dkm_deploy.recipe import PaletteSpec


class Method(Protocol):
    """A way to train palettes; a frozen record of its options."""

    def temperature_for(self, spec: PaletteSpec) -> float:
        """Temperature tau over the variance of the weights, before any schedule."""
        ...

    def soften(self, vectors: Tensor, centroids: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
        """What the forward pass sees of ``vectors``, and the centroids to start from next time.

        Args:
            vectors: ``(groups, count, dim)``.
            centroids: ``(groups, clusters, dim)``.
            tau: squared weight units, ``(groups,)``.
        """
        ...


@dataclass(frozen=True)
class DKM:
    """Differentiable k-means.

    Attributes:
        temperature: tau over the variance of the layer's weights. None takes
            ``0.05 * 4**(2 - bits / cluster_dim)``: 0.05 at 2 bits, and smaller with the squared
            distance between centroids, so that every width is about equally soft. A value much
            above 0.1 at 2 bits or 0.02 at 4 bits merges centroids.
        iterations: of k-means in each forward pass. The centroids carry over from step to step,
            so that one serves (the paper's Appendix E).
    """

    temperature: float | None = None
    iterations: int = 1

    def __post_init__(self) -> None:
        if self.temperature is not None and not self.temperature > 0:
            raise DkmError(f"temperature is {self.temperature}; it must be above 0")
        if self.iterations < 1:
            raise DkmError(f"iterations is {self.iterations}; it must be at least 1")

    def temperature_for(self, spec: PaletteSpec) -> float:
        """Temperature tau over the variance of the weights."""
        if self.temperature is not None:
            return self.temperature
        return float(0.05 * 4.0 ** (2 - spec.bits / spec.cluster_dim))

    def soften(self, vectors: Tensor, centroids: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
        """See :func:`dkm_deploy.clustering.dkm.soft_cluster`."""
        return soft_cluster(vectors, centroids, tau, self.iterations)


METHODS: dict[str, Method] = {"dkm": DKM()}


def method_named(method: str | Method) -> Method:
    """A method by its name, or itself."""
    if not isinstance(method, str):
        return method
    if method not in METHODS:
        raise DkmError(f"no training method is called {method!r}; there are {', '.join(METHODS)}")
    return METHODS[method]
