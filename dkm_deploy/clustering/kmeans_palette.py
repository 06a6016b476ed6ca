"""The k-means palette of one weight."""

from __future__ import annotations

import torch
from torch import Tensor

from dkm_deploy.clustering.kmeans.kmeans import assign, kmeans
from dkm_deploy.clustering.layout import channel_scale, over_scale, to_palette, to_vectors
from dkm_deploy.palette import Palette
from dkm_deploy.recipe import PaletteSpec


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
    centroids = kmeans(vectors, 1 << spec.bits, weights=masses)
    nearest = assign(vectors, centroids, masses)
    return to_palette(nearest, centroids, weight.shape, spec, scale)


def _in_scale(weight: Tensor, scale: Tensor, importance: Tensor | None) -> Tensor | None:
    """The importance of each value over its scale; None takes all alike.

    Channels of zeros do not count: their scale makes zeros of any centroid.
    """
    if importance is not None:
        # Over the largest, for squares overflow; only ratios count.
        return importance * (scale / scale.max().clamp(min=torch.finfo(scale.dtype).tiny)).square()
    return None if (scale > 0).all() else (scale > 0).to(weight.dtype).expand_as(weight)
