"""The k-means palette of one weight."""

from __future__ import annotations

from itertools import zip_longest

import torch
from torch import Tensor

from dkm_deploy.clustering.kept_zeros import Clustered
from dkm_deploy.clustering.kmeans.kmeans import assign, kmeans
from dkm_deploy.clustering.layout import channel_scale, over_scale, to_palette, to_vectors
from dkm_deploy.palette import Palette
from dkm_deploy.palette_spec import PaletteSpec


def cluster(weight: Tensor, spec: PaletteSpec, importance: Tensor | None = None) -> Palette:
    """The palette with the least squared error that k-means finds.

    Args:
        weight: floating, of any rank.
        spec: the palette's layout.
        importance: of each squared difference from ``weight``, of its shape, finite and not
            negative; None takes all alike, in units of the channel's scale if there is one.
    """
    scale = channel_scale(weight) if spec.per_channel_scale else None
    vectors = to_vectors(weight if scale is None else over_scale(weight, scale), spec)
    if scale is not None:
        importance = _in_scale(weight, scale, importance)
    masses = None if importance is None else to_vectors(importance, spec)
    clustered = Clustered.of(weight, spec)
    parts = clustered.parts(vectors, vectors)
    of_parts = [None] if masses is None else clustered.parts(masses, vectors)
    found = [
        kmeans(part, clustered.clusters, weights=mass)
        for part, mass in zip_longest(parts, of_parts)
    ]
    centroids = torch.cat(found)
    nearest = assign(vectors, centroids, masses)
    nearest, luts = clustered.with_zero_entry(nearest, centroids, vectors)
    return to_palette(nearest, luts, weight.shape, spec, scale)


def _in_scale(weight: Tensor, scale: Tensor, importance: Tensor | None) -> Tensor | None:
    """The importance of each value over its scale; None takes all alike.

    Channels of zeros do not count: their scale makes zeros of any centroid.
    """
    if importance is not None:
        # Over the largest, for squares overflow; only ratios count.
        return importance * (scale / scale.max().clamp(min=torch.finfo(scale.dtype).tiny)).square()
    return None if (scale > 0).all() else (scale > 0).to(weight.dtype).expand_as(weight)
