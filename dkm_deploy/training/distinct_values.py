"""Are there enough distinct values to train centroids for?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dkm_deploy.clustering.kept_zeros import Clustered
from dkm_deploy.errors import DkmError
from dkm_deploy.palette_spec import PaletteSpec

_SAMPLE = 1 << 12  # vectors in which enough distinct ones are sought first


class FewValuesError(DkmError):
    """A group of a weight has fewer distinct values than its LUT has entries.

    Attributes:
        bits: the most that it has enough values for; 0 if it has but one.
    """

    def __init__(self, message: str, bits: int) -> None:
        super().__init__(message)
        self.bits = bits


def check_distinct(parts: Sequence[Tensor], clustered: Clustered, spec: PaletteSpec) -> None:
    """Raise FewValuesError if a group has too few distinct vectors.

    Args:
        parts: the vectors that are clustered, ``(groups, count, cluster_dim)`` in all.
        clustered: how they are.
        spec: of the palette.
    """
    fewest = min(
        (
            _count_distinct(group, clustered.clusters)
            for part in parts
            for group in part
            if group.any() or not clustered.keeps_zeros
        ),
        default=clustered.clusters,
    )
    if fewest < clustered.clusters:
        bits = max(fewest + clustered.keeps_zeros, 1).bit_length() - 1
        raise FewValuesError(
            f"{clustered.clusters} clusters for {fewest} distinct "
            f"{'values' if spec.cluster_dim == 1 else 'vectors'}; use at most {bits} bits, or skip "
            "it",
            bits,
        )


def _count_distinct(group: Tensor, enough: int) -> int:
    """Distinct vectors of a group; of a part of it, if these are enough."""
    part = group[:: max(1, len(group) // _SAMPLE)]
    few = len(torch.unique(part, dim=0))
    return few if few >= enough else len(torch.unique(group, dim=0))
