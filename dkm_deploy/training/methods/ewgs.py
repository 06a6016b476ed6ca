"""Element-wise gradient scaling: uniform levels whose interval and scale are learned."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from torch import Tensor

from dkm_deploy._support.argument_checks import real
from dkm_deploy.clustering.quantizers import uniform_levels
from dkm_deploy.errors import DkmError
from dkm_deploy.training.methods.protocol import HardMethod


@dataclass(frozen=True)
class EWGS(HardMethod):
    """Uniform levels with a learned interval and scale (Lee, Kim and Ham, CVPR 2021).

    Each weight (each group of its channels) learns three numbers with the model: the ends l and u
    of the interval and the scale of the values; see
    :mod:`dkm_deploy.clustering.quantizers.uniform_levels`. They are a parameter beside the weight,
    so the optimiser must be made after ``dkm.prepare``; their gradients add up over the weight, so
    they want a smaller rate (Sakthi et al. 2022 train with 1e-5 for 1e-3) and no weight decay::

        learned = [p for n, p in model.named_parameters() if n.endswith(".learned")]

    The LUT holds the values of the levels, and the indices say which one a weight is at.

    Attributes:
        scaling: delta, until :func:`dkm_deploy.update_ewgs_scaling` measures another. The
            paper's ResNet-20 with 1-bit weights and activations has 85.3 % with this one, 84.7
            without scaling and 85.6 with a delta from the Hessian.
    """

    scaling: float = 1e-3

    def __post_init__(self) -> None:
        real("scaling", self.scaling, least=0, most=sys.float_info.max)

    def start(self, vectors: Tensor, clusters: int) -> Tensor:
        """See ``uniform_levels.start``. Raises DkmError for vectors."""
        if vectors.shape[-1] > 1:
            raise DkmError(
                f"method ewgs has uniform levels of single values, and cluster_dim is "
                f"{vectors.shape[-1]}; make it 1 or take another method"
            )
        return uniform_levels.start(vectors, clusters)

    def values(self, learned: Tensor, clusters: int) -> Tensor:
        """See :func:`dkm_deploy.clustering.quantizers.uniform_levels.values`."""
        return uniform_levels.values(learned, clusters)

    def assign(self, vectors: Tensor, learned: Tensor, clusters: int) -> Tensor:
        """See :func:`dkm_deploy.clustering.quantizers.uniform_levels.assign_levels`."""
        return uniform_levels.assign_levels(vectors, learned, clusters)

    def decode(self, levels: Tensor, learned: Tensor) -> Tensor:
        """See :func:`dkm_deploy.clustering.quantizers.uniform_levels.decode_levels`."""
        return uniform_levels.decode_levels(levels, learned)

    def quantize(self, vectors: Tensor, learned: Tensor, clusters: int, scaling: Tensor) -> Tensor:
        """See :func:`dkm_deploy.clustering.quantizers.uniform_levels.quantize`."""
        return uniform_levels.quantize(vectors, learned, clusters, scaling)
