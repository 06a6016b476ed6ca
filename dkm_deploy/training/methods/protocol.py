"""What a way to train a palette must offer."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from dkm_deploy.palette_spec import PaletteSpec


class Method(Protocol):
    """A way to train palettes; a frozen record of its options."""

    @property
    def automatic(self) -> bool:
        """Whether the temperature was left to us, and may be eased for a layer."""
        ...

    def tau(self, variance: Tensor, spec: PaletteSpec) -> Tensor:
        """Temperature of each group in squared weight units, ``(groups,)``; 0 is hard.

        Args:
            variance: of the weights of each group, ``(groups,)``.
            spec: of the palette.
        """
        ...

    def soften(self, vectors: Tensor, centroids: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
        """What the forward pass sees of ``vectors``, and the centroids to start from next time.

        Args:
            vectors: ``(groups, count, dim)``.
            centroids: ``(groups, clusters, dim)``.
            tau: squared weight units, ``(groups,)``, after the recipe's schedule.
        """
        ...


@runtime_checkable
class SnappingMethod(Method, Protocol):
    """A method that now and then finds the centroids anew, and moves the weights onto them.

    It is told the gradients of the steps between; what it keeps of them is of a weight's shape.
    """

    @property
    def every(self) -> int:
        """Steps from one snap to the next."""
        ...

    def update_importance(self, importance: Tensor, gradient: Tensor) -> Tensor:
        """What is kept after a step's gradient.

        Args:
            importance: what was kept before, of the weight's shape; zeros after a snap.
            gradient: of the weight, of the same shape; it may hold NaN and infinity.
        """
        ...

    def snap(self, vectors: Tensor, importance: Tensor, clusters: int) -> Tensor:
        """New centroids, ``(groups, clusters, dim)``.

        Args:
            vectors: ``(groups, count, dim)``.
            importance: what was kept, of the shape of ``vectors`` and for gradients by them.
            clusters: centroids a group.
        """
        ...


@runtime_checkable
class LearnedLevelsMethod(Protocol):
    """A method whose levels follow from numbers that the optimiser learns with the weights.

    The numbers of a weight are ``(groups, ..)``, float32 or wider; levels are ``2**bits`` a group.
    """

    @property
    def automatic(self) -> bool:
        """See :class:`Method`."""
        ...

    @property
    def scaling(self) -> float:
        """Of gradients, at first; see :meth:`quantize`."""
        ...

    def tau(self, variance: Tensor, spec: PaletteSpec) -> Tensor:
        """See :class:`Method`."""
        ...

    def start(self, vectors: Tensor, clusters: int) -> Tensor:
        """The numbers at the start, for vectors ``(groups, count, dim)``.

        Raises:
            DkmError: the method cannot do with such vectors.
        """
        ...

    def values(self, learned: Tensor, clusters: int) -> Tensor:
        """The levels as the LUT holds them, ``(groups, clusters, dim)``."""
        ...

    def assign(self, vectors: Tensor, learned: Tensor, clusters: int) -> Tensor:
        """The level of each vector, int64 ``(groups, count)``."""
        ...

    def decode(self, levels: Tensor, learned: Tensor) -> Tensor:
        """The values of levels that are numbered from 0 to 1; differentiable in both."""
        ...

    def quantize(self, vectors: Tensor, learned: Tensor, clusters: int, scaling: Tensor) -> Tensor:
        """What the forward pass sees: values of the assigned levels; differentiable in both.

        Args:
            vectors: ``(groups, count, dim)``.
            learned: the numbers.
            clusters: levels.
            scaling: a scalar, of the gradient by the distance to a level; at first that of the
                method.
        """
        ...


AnyMethod = Method | LearnedLevelsMethod


class HardMethod:
    """The part of methods that know no temperature."""

    @property
    def automatic(self) -> bool:
        """There is no temperature to ease."""
        return False

    def tau(self, variance: Tensor, spec: PaletteSpec) -> Tensor:
        """Zeros: nothing is soft."""
        return torch.zeros_like(variance)
