"""Zeros of a pruned weight: they have a LUT entry of their own, and take no part in clustering.

A vector counts as zero if all its values are exactly 0. Where zeros are kept, a LUT has one
centroid fewer, and its last entry is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dkm_deploy.clustering.layout import channel_scale, to_vectors
from dkm_deploy.palette_spec import PaletteSpec

_PRUNED = 0.5  # share of zeros from which a weight counts as pruned


@dataclass(frozen=True)
class Clustered:
    """What of a weight is clustered together.

    Attributes:
        keeps_zeros: each group is clustered by itself, without its zeros; else all groups are at
            once.
        clusters: centroids of a group.
    """

    keeps_zeros: bool
    clusters: int

    @classmethod
    def of(cls, weight: Tensor, spec: PaletteSpec) -> Clustered:
        """As the spec says; if it does not say, zeros are kept if they are half of the vectors.

        Args:
            weight: floating, of any rank.
            spec: of the palette. With a per-channel scale, channels of zeros do not count: their
                scale makes them zeros.
        """
        kept = spec.keep_zeros
        if kept is None:
            zeros = zero_vectors(to_vectors(weight, spec))
            if spec.per_channel_scale:
                counted = (channel_scale(weight) > 0).expand_as(weight)
                zeros = zeros[to_vectors(counted, spec).any(2)]
            kept = bool(zeros.float().mean() >= _PRUNED) and not bool(zeros.all())
        return cls(kept, (1 << spec.bits) - kept)

    def parts(self, values: Tensor, vectors: Tensor) -> Sequence[Tensor]:
        """Those of the values that are clustered, by part.

        Args:
            values: ``(groups, count, ..)``; differentiable.
            vectors: ``(groups, count, dim)``, which tell where zeros are.

        Returns:
            All values; or for each group ``(1, vectors, ..)``, at least one.
        """
        if not self.keeps_zeros:
            return [values]
        chosen = _chosen(vectors)
        return [group[mask][None] for group, mask in zip(values, chosen, strict=True)]

    def split(self, of_groups: Tensor) -> Sequence[Tensor]:
        """What belongs to each of the parts, of a tensor ``(groups, ..)``."""
        return [one[None] for one in of_groups] if self.keeps_zeros else [of_groups]

    def join(self, parts: Sequence[Tensor], vectors: Tensor) -> Tensor:
        """The inverse of :meth:`parts`, with zeros where there were zeros; differentiable."""
        if not self.keeps_zeros:
            return parts[0]
        pairs = zip(parts, _chosen(vectors), strict=True)
        return torch.stack(
            [
                part.new_zeros((len(mask), *part.shape[2:])).index_put((mask,), part[0])
                for part, mask in pairs
            ]
        )

    def with_zero_entry(
        self, assignment: Tensor, centroids: Tensor, vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Give zeros their entry, the last.

        Args:
            assignment: of all vectors, int64 ``(groups, count)``.
            centroids: ``(groups, clusters, dim)``.
            vectors: ``(groups, count, dim)``.

        Returns:
            The assignment and the LUTs, ``(groups, 2**bits, dim)``.
        """
        if not self.keeps_zeros:
            return assignment, centroids
        luts = torch.nn.functional.pad(centroids, (0, 0, 0, 1))
        return torch.where(zero_vectors(vectors), self.clusters, assignment), luts


def zero_vectors(vectors: Tensor) -> Tensor:
    """Which vectors are zeros; bool ``(groups, count)``."""
    return (vectors.detach() == 0).all(2)


def _chosen(vectors: Tensor) -> Tensor:
    """The vectors that are clustered; of a group of zeros the first. bool ``(groups, count)``."""
    chosen = ~zero_vectors(vectors)
    first = torch.zeros_like(chosen)
    first[:, 0] = True
    return torch.where(chosen.any(1, keepdim=True), chosen, first)
