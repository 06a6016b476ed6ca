"""Hard assignment with a straight-through gradient as a training method."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from torch import Tensor

from dkm_deploy._support.argument_checks import real
from dkm_deploy.clustering.quantizers.hard import hard_cluster
from dkm_deploy.training.methods.protocol import HardMethod


@dataclass(frozen=True)
class HardSTE(HardMethod):
    """Hard assignment with a straight-through gradient, on request scaled as in EWGS.

    Attributes:
        scaling: delta of EWGS (its paper uses 1e-3); 0 is a plain straight-through gradient. See
            :func:`dkm_deploy.clustering.quantizers.hard.hard_cluster`.

    Raises:
        DkmError: ``scaling`` is out of range.

    Example:
        >>> model = dkm.prepare(nn.Linear(8, 4), 2, method=dkm.HardSTE(scaling=1e-3))
        >>> dkm.status(model)["weight"].temperature
        0.0
    """

    scaling: float = 0.0

    def __post_init__(self) -> None:
        real("scaling", self.scaling, least=0, most=sys.float_info.max)

    def soften(self, vectors: Tensor, centroids: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
        """See :func:`dkm_deploy.clustering.quantizers.hard.hard_cluster`."""
        return hard_cluster(vectors, centroids, self.scaling)
