"""A plug-in for coreai-opt, Apple's compressor for Core AI: train its palettes with DKM.

coreai-opt calls :func:`register` when it is imported. Its configuration then takes
``training_strategy_spec={"type": "dkm"}``; what it is without, one-shot k-means, gives palettized
weights no gradient.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from coreai_opt.palettization.spec import TrainingStrategy, TrainingStrategySpec
from pydantic import model_validator
from torch import Tensor

from dkm_deploy.clustering.dkm.collapse import next_start, variances
from dkm_deploy.clustering.dkm.soft_cluster import Gradient
from dkm_deploy.clustering.kmeans.kmeans import assign
from dkm_deploy.palette_spec import PaletteSpec
from dkm_deploy.training.methods.dkm import DKM
from dkm_deploy.training.soft_palette import in_recomputation
from dkm_deploy.training.temperature import easing_factor


class DKMTraining(TrainingStrategy):  # type: ignore[misc]  # the package is an extra
    """How one weight of coreai-opt trains: as one that :func:`dkm_deploy.prepare` prepared.

    The centroids are coreai-opt's own buffer, so its checkpoints hold them; the temperature is
    fitted to the weight in the first forward pass after a start or a resume.

    Args:
        options: of :class:`dkm_deploy.training.methods.dkm.DKM`.
    """

    def __init__(self, **options: Any) -> None:
        self._method = DKM(**options)
        self._eased = 0.0
        self._started = torch.empty(0)  # where the last forward pass started from
        self._step = 0

    def train_forward(self, module: Any, weight: Tensor) -> Tensor:
        """The soft weight, and the centroids and indices of ``module`` moved with it.

        Args:
            module: coreai-opt's parametrization of the weight.
            weight: of any rank.
        """
        with torch.autocast(weight.device.type, enabled=False):
            vectors, context = module.vectorize(weight)
            spec = PaletteSpec(module.n_bits, module.cluster_dim)
            again = in_recomputation()
            start = _widen_centroids(self._started if again else module.centroids)
            if not self._eased:
                self._eased = easing_factor(self._method, vectors.detach(), start, spec)
            tau = self._method.tau(variances(vectors), spec) * self._eased
            softened, centroids = self._method.soften(vectors, start, tau)
            if not again:
                kept = self._carried(module, vectors.detach(), start, centroids)
                module.indices = _indices(module, weight, assign(vectors, kept), context)
            return module.devectorize(softened, context)  # type: ignore[no-any-return]

    @torch.no_grad()
    def _carried(self, module: Any, vectors: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """Keep the centroids for the next step; those that ``module`` holds now."""
        self._step += 1
        kept, _ = next_start(
            before, after, vectors, torch.tensor(self._step, device=vectors.device)
        )
        self._started = module.centroids.clone()
        module.centroids.copy_(kept)
        module.quantize_lut(module._raw_lut(module.centroids))  # has its range follow them
        module._indices_stale = True  # for the optimiser will move the weights
        return _widen_centroids(module.centroids)


class DKMTrainingSpec(TrainingStrategySpec):  # type: ignore[misc]  # the package is an extra
    """DKM in coreai-opt's configuration, with the options of :class:`DKM`."""

    _strategy_cls: ClassVar[type[TrainingStrategy]] = DKMTraining

    temperature: float | None = None
    tau_absolute: float | None = None
    iterations: int = 1
    gradient: Gradient = "unrolled"

    @model_validator(mode="after")
    def _check(self) -> DKMTrainingSpec:
        self.build_strategy()
        return self


def register() -> None:
    """Offer DKM to coreai-opt under the type "dkm"."""
    TrainingStrategySpec.register("dkm")(DKMTrainingSpec)


def _widen_centroids(centroids: Tensor) -> Tensor:
    return centroids.to(torch.promote_types(centroids.dtype, torch.float32))


def _indices(module: Any, weight: Tensor, nearest: Tensor, context: Any) -> Tensor:
    """Assignments ``(groups, count)`` in the shape of coreai-opt's indices, on the CPU as those.

    coreai-opt exports the indices that it finds, without a look at the centroids.
    """
    block = torch.empty(context.block_shape, device="meta")
    blocks = [module._build_block_indices(group, block) for group in nearest.to(torch.uint8)]
    indices: Tensor = module._combine_block_indices(blocks, context.axis, weight)
    return indices.cpu().contiguous()
