"""The soft palette of one weight: the parametrization that a prepared model trains with."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any, cast

import torch
from torch import Tensor, nn

from dkm_deploy.clustering.dkm.collapse import next_start, variances
from dkm_deploy.clustering.kept_zeros import Clustered, zero_vectors
from dkm_deploy.clustering.kmeans.kmeans import assign, kmeans
from dkm_deploy.clustering.layout import (
    channel_scale,
    from_vectors,
    over_scale,
    to_palette,
    to_vectors,
)
from dkm_deploy.nn_utils.weights import OwnParametrization
from dkm_deploy.palette import Palette
from dkm_deploy.palette_spec import PaletteSpec
from dkm_deploy.schedule import Schedule
from dkm_deploy.training.distinct_values import check_distinct
from dkm_deploy.training.fsdp import gather
from dkm_deploy.training.methods.protocol import AnyMethod, LearnedLevelsMethod, SnappingMethod
from dkm_deploy.training.temperature import easing_factor

_FREE = 1e-6  # of the usual scale: channels that do not exceed it count as zeros
_EVERY = 10  # steps between two looks at the gap, which costs a pass over the weight


class SoftPalette(OwnParametrization):
    """Parametrization of one weight.

    Training mode gives the soft weight and moves the centroids; eval mode gives the hard weight
    that :func:`dkm_deploy.freeze` will write.

    A per-channel scale is measured once, when the weight is prepared. Centroids carry over from
    step to step, so the units in which they are counted must not move under them; a scale that
    followed the largest weight of each channel would also jump with it. A channel that outgrows
    its scale is clustered as well as before, for nothing bounds what is clustered to 1.

    A channel of zeros has the median of the others' scales. Until one of its weights is nearer to
    a centroid than to zero, training mode passes it on as it is, with the whole gradient, and
    :func:`dkm_deploy.freeze` gives it a scale of 0.

    Buffers, so that a ``state_dict`` holds all that a resumed run needs:
        scale: of the channels, ``(channels, 1, 1 ..)``; None without a per-channel scale. The
            centroids and the temperature are in units of it.
        centroids: ``(groups, 2**bits, cluster_dim)``, where the next forward pass starts.
        started: where the last one did, for activation checkpointing, which repeats it.
        step: counted by ``dkm.step``.
        eased: factor on the method's temperature, below 1 where that would merge centroids.
        cooling: factor on the temperature, from the schedule.
        first_gap: soft-hard gap at step 0, for a schedule that anneals it.
        repaired: centroids that ran into another one and were sent off again.
        importance: of the weight's shape, what a method that snaps keeps of the gradients; None
            for other methods.

    Of methods that learn their levels, a parameter and a buffer; None for others:
        learned: the numbers that give them, ``(groups, ..)``; the centroids are then a copy.
        scaling: delta of the gradients.

    note: how the recipe's default was changed to fit the weight, and why; empty if it was not.

    Not kept:
        held: levels ``(groups, count, 1)`` that forward passes take for the weight's while someone
            differentiates by them.
    """

    scale: Tensor | None
    learned: nn.Parameter | None
    scaling: Tensor | None
    held: Tensor | None = None
    importance: Tensor | None
    centroids: Tensor
    started: Tensor
    step: Tensor
    eased: Tensor
    cooling: Tensor
    first_gap: Tensor
    repaired: Tensor

    def __init__(
        self,
        weight: Tensor,
        spec: PaletteSpec,
        method: AnyMethod,
        schedule: Schedule | None,
        note: str = "",
    ) -> None:
        super().__init__()
        self.spec, self.method, self.schedule, self.note = spec, method, schedule, note
        self.register_buffer("scale", _start_scale(weight) if spec.per_channel_scale else None)
        vectors = self.vectors(weight.detach())
        self.clustered = Clustered.of(weight.detach(), spec)
        parts = self.clustered.parts(vectors, vectors)
        check_distinct(parts, self.clustered, spec)
        zero = torch.zeros((), device=weight.device)
        wide = torch.promote_types(vectors.dtype, torch.float32)
        precise = [part.to(wide) for part in parts]
        self.register_parameter("learned", None)
        self.register_buffer("scaling", None)
        if isinstance(method, LearnedLevelsMethod):
            started = [method.start(part, self.clustered.clusters) for part in precise]
            self.learned = nn.Parameter(torch.cat(started))
            self.scaling = zero + method.scaling
            self.register_buffer("centroids", self.levels())
        else:
            masses = self._masses(weight.detach())
            of_parts = [None] if masses is None else self.clustered.parts(masses, vectors)
            found = [
                kmeans(part, self.clustered.clusters, weights=mass)
                for part, mass in zip_longest(precise, of_parts)
            ]
            self.register_buffer("centroids", torch.cat(found))
        self.register_buffer("started", self.centroids.clone())
        self.register_buffer("step", zero.to(torch.int64))
        self.register_buffer("eased", zero + 1)
        self.register_buffer("cooling", zero + 1)
        self.register_buffer("first_gap", zero.clone())
        self.register_buffer("repaired", zero.to(torch.int64))
        self.register_buffer("importance", None)
        if isinstance(method, SnappingMethod):
            self.importance = torch.zeros_like(weight.detach(), dtype=wide)
        if not isinstance(method, LearnedLevelsMethod):
            end = schedule.end if schedule and schedule.end else 1.0
            factors = [
                easing_factor(method, part, begin, spec, end)
                for part, begin in zip(parts, self.clustered.split(self.centroids), strict=True)
            ]
            self.eased.fill_(min(factors))
        if schedule is not None and schedule.gap is not None:
            self.first_gap.fill_(self.gap(weight.detach()))

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *others: Any
    ) -> None:
        """Zeros are kept where they were when the state was saved, unless the spec says."""
        saved = state_dict.get(f"{prefix}centroids")
        if saved is not None and self.spec.keep_zeros is None:
            clusters = saved.shape[1]
            self.clustered = Clustered(clusters < 1 << self.spec.bits, clusters)
            self.centroids = self.centroids.new_empty(saved.shape)
            self.started = self.centroids.clone()
        super()._load_from_state_dict(state_dict, prefix, *others)

    def vectors(self, weight: Tensor) -> Tensor:
        """What is clustered: the vectors of the weight over its scale; differentiable."""
        scaled = weight if self.scale is None else over_scale(weight, self.scale.to(weight.dtype))
        return to_vectors(scaled, self.spec)

    def variance(self, weight: Tensor) -> Tensor:
        """Of the vectors of each group that are clustered, ``(groups,)``."""
        vectors = self.vectors(weight)
        return torch.cat([variances(part) for part in self.clustered.parts(vectors, vectors)])

    def _pruned(self, values: Tensor, weight: Tensor) -> Tensor:
        """``values``, of the weight's shape, but 0 where zeros are kept."""
        if not self.clustered.keeps_zeros:
            return values
        vectors = to_vectors(weight.detach(), self.spec)
        zeros = zero_vectors(vectors).unsqueeze(-1).expand_as(vectors)
        return values.masked_fill(from_vectors(zeros, weight.shape, self.spec), 0)

    def _masses(self, weight: Tensor) -> Tensor | None:
        """The mass of each of the vectors' values, 0 in channels of zeros; None is 1 each."""
        if self.scale is None or (channel_scale(weight) > 0).all():
            return None
        counted = channel_scale(weight) > _FREE * self.scale.float()
        return to_vectors(counted.to(weight.dtype).expand_as(weight), self.spec)

    def _scale_now(self, weight: Tensor) -> Tensor | None:
        """The scale of the channels, 0 where all of a channel is nearer to 0 than to a centroid."""
        if self.scale is None:
            return None
        nearest = (self.levels().abs().amax(2).min() / 2).clamp(min=_FREE)
        return torch.where(channel_scale(weight) > nearest * self.scale.float(), self.scale, 0)

    def _weight(self, vectors: Tensor, weight: Tensor) -> Tensor:
        """What becomes of ``weight`` when its vectors become these."""
        made, scale = from_vectors(vectors, weight.shape, self.spec), self._scale_now(weight)
        # A frozen weight is multiplied in its own dtype too, so that both have the same bits.
        return made if scale is None else made * scale.to(made.dtype)

    def tau(self, variance: Tensor) -> Tensor:
        """Temperature of each group in squared units of its vectors; ``(groups,)``.

        Args:
            variance: of the vectors of each group, ``(groups,)``.
        """
        return self.method.tau(variance, self.spec) * self.eased * self.cooling

    def soft(self, weight: Tensor, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The soft weight, shaped as ``weight``, and the centroids that made it.

        Args:
            weight: of any rank.
            start: centroids to start from; the next forward pass's if left out.
        """
        vectors = self.vectors(weight)
        if isinstance(self.method, LearnedLevelsMethod):
            scaling = cast("Tensor", self.scaling)
            seen = self.method.quantize(vectors, self._learned(), self.clustered.clusters, scaling)
            return self._keep_zero_channels(self._weight(seen, weight), weight), self.levels()
        starts = self.clustered.split(self.centroids if start is None else start)
        parts = self.clustered.parts(vectors, vectors)
        found = [
            self.method.soften(part, begin, self.tau(variances(part)))
            for part, begin in zip(parts, starts, strict=True)
        ]
        softened = self.clustered.join([soft for soft, _ in found], vectors)
        centroids = torch.cat([centroids for _, centroids in found])
        return self._keep_zero_channels(self._weight(softened, weight), weight), centroids

    def _keep_zero_channels(self, soft: Tensor, weight: Tensor) -> Tensor:
        """The soft weight, but for channels of zeros, which would have no gradient.

        Where zeros are kept they have none.
        """
        scale = self._scale_now(weight)
        seen = soft if scale is None else torch.where(scale > 0, soft, weight)
        return self._pruned(seen, weight)

    def hard(self, weight: Tensor) -> Tensor:
        """The weight with every vector at the centroid it is assigned to."""
        vectors = self.vectors(weight)
        assigned = self.assign(vectors).unsqueeze(-1).expand_as(vectors)
        decoded = self._weight(self.levels().to(weight.dtype).gather(1, assigned), weight)
        return self._pruned(decoded, weight)

    def levels(self) -> Tensor:
        """What the LUT holds as of now, ``(groups, clusters, cluster_dim)``; detached."""
        if isinstance(self.method, LearnedLevelsMethod):
            return self.method.values(self._learned().detach(), self.clustered.clusters)
        return self.centroids

    def assign(self, vectors: Tensor) -> Tensor:
        """The cluster of each vector, int64 ``(groups, count)``; zeros that are kept too."""
        if isinstance(self.method, LearnedLevelsMethod):
            return self.method.assign(vectors, self._learned().detach(), self.clustered.clusters)
        return assign(vectors, self.centroids)

    def _learned(self) -> Tensor:
        return gather(cast("Tensor", self.learned))

    def palette(self, weight: Tensor) -> Palette:
        """The hard palette of ``weight`` with today's centroids."""
        vectors = self.vectors(weight)
        assigned, levels = self.assign(vectors), self.levels().to(weight.dtype)
        assigned, levels = self.clustered.with_zero_entry(assigned, levels, vectors)
        return to_palette(assigned, levels, weight.shape, self.spec, self._scale_now(weight))

    @torch.no_grad()
    def gap(self, weight: Tensor) -> Tensor:
        """``|soft - hard| / |weight|``, Frobenius norms; a scalar."""
        distance = (self.soft(weight)[0] - self.hard(weight)).float().norm()
        size: Tensor = weight.float().norm()
        return torch.div(distance, size.clamp(min=torch.finfo(torch.float32).tiny))

    def advance(self, weight: Tensor, steps: int, gradient: Tensor | None = None) -> Tensor | None:
        """Count steps, and do what is due after them.

        Args:
            weight: after the steps.
            steps: how many.
            gradient: of the last step, of the weight's shape; None if there is none.

        Returns:
            The weight to go on from where a snap has moved it; else None.
        """
        before = self.step.clone()
        self.step += steps
        self._anneal(weight, before)
        if not isinstance(self.method, SnappingMethod) or self.importance is None:
            return None
        if gradient is not None:
            self.importance.copy_(self.method.update_importance(self.importance, gradient))
        due = self.step // self.method.every > before // self.method.every
        return self._snap(weight, self.method, self.importance) if due else None

    def _anneal(self, weight: Tensor, before: Tensor) -> None:
        """Move the temperature along the schedule."""
        if self.schedule is None:
            return
        progress = (self.step / self.schedule.steps).clamp(max=1)
        if self.schedule.end is not None:
            self.cooling.copy_(self.schedule.end**progress)
        elif self.schedule.gap is not None and self.step // _EVERY > before // _EVERY:
            wanted = self.first_gap ** (1 - progress) * self.schedule.gap**progress
            # The gap grows about with the root of tau; small steps keep the way steady.
            self.cooling.mul_((wanted / self.gap(weight).clamp(min=1e-12)).clamp(0.5, 1.5))

    @torch.no_grad()
    def _snap(self, weight: Tensor, method: SnappingMethod, importance: Tensor) -> Tensor:
        """New centroids, and the weight moved onto them."""
        # The gradient by a weight over its scale is larger by that scale.
        scaled = importance if self.scale is None else importance * self.scale
        vectors, masses = self.vectors(weight), to_vectors(scaled, self.spec)
        pairs = zip(
            self.clustered.parts(vectors, vectors),
            self.clustered.parts(masses, vectors),
            strict=True,
        )
        found = [method.snap(part, mass, self.clustered.clusters) for part, mass in pairs]
        self.centroids.copy_(torch.cat(found))
        importance.zero_()
        return self.hard(weight)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight as the model's forward pass uses it."""
        if self.held is not None and isinstance(self.method, LearnedLevelsMethod):
            values = self.method.decode(self.held, self._learned())
            return self._pruned(self._weight(values.to(weight.dtype), weight), weight)
        if not self.training:
            return self.hard(weight)
        with torch.autocast(weight.device.type, enabled=False):
            if in_recomputation():
                return self.soft(weight, self.started)[0]
            soft, centroids = self.soft(weight)
            self._carry(weight.detach(), centroids)
        return soft

    @torch.no_grad()
    def _carry(self, weight: Tensor, centroids: Tensor) -> None:
        """Keep the centroids for the next step."""
        vectors = self.vectors(weight)
        found = [
            next_start(before, after, part, self.step)
            for before, after, part in zip(
                self.clustered.split(self.centroids),
                self.clustered.split(centroids),
                self.clustered.parts(vectors, vectors),
                strict=True,
            )
        ]
        self.started.copy_(self.centroids)
        self.centroids.copy_(torch.cat([kept for kept, _ in found]))
        for _, moved in found:
            self.repaired.add_(moved)


def in_recomputation() -> bool:
    """Whether a backward pass runs this forward pass again, as activation checkpointing does."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def _start_scale(weight: Tensor) -> Tensor:
    """The scale of each channel; channels of next to nothing get the usual one, 1 if all are."""
    scale = channel_scale(weight)
    if not (scale > 0).any():
        return torch.ones_like(scale)
    usual = scale[scale > 0].median()
    return torch.where(scale > _FREE * usual.float(), scale, usual)
