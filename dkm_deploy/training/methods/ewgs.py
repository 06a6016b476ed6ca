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

    Each weight (or each group of its channels) learns three numbers: the two ends of the interval
    and the scale of the values; see :mod:`dkm_deploy.clustering.quantizers.uniform_levels`. They
    are an extra parameter of the model, so make the optimizer after ``dkm.prepare``. Their
    gradients are sums over the whole weight, so give them a smaller learning rate (Sakthi et al.
    2022 use 1e-5 where the weights have 1e-3) and no weight decay. The LUT holds the values of the
    levels; an index says which level a weight has.

    Attributes:
        scaling: delta, until :func:`dkm_deploy.update_ewgs_scaling` measures another. In the paper,
            ResNet-20 with 1-bit weights and activations reaches 85.3 % with this value, 84.7 % with
            0, and 85.6 % with a delta from the Hessian.

    Raises:
        DkmError: ``scaling`` is out of range.

    Example:
        >>> model = dkm.prepare(nn.Linear(8, 4), 2, method=dkm.EWGS())
        >>> [name for name, _ in model.named_parameters() if name.endswith(".learned")]
        ['parametrizations.weight.0.learned']
    """

    scaling: float = 1e-3

    def __post_init__(self) -> None:
        real("scaling", self.scaling, least=0, most=sys.float_info.max)

    def start(self, vectors: Tensor, clusters: int) -> Tensor:
        """See ``uniform_levels.start``. Raises DkmError for vectors."""
        if vectors.shape[-1] > 1:
            raise DkmError(
                f"cluster_dim is {vectors.shape[-1]}, and method ewgs needs 1; set it to 1 or use "
                "another method"
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
