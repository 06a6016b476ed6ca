"""The k-means palette of one weight."""

from __future__ import annotations

from torch import Tensor

from dkm_deploy.clustering.kmeans import assign, kmeans
from dkm_deploy.clustering.layout import channel_scale, to_palette, to_vectors
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
    vectors = to_vectors(weight if scale is None else weight / scale, spec)
    masses = None
    if importance is not None:
        masses = to_vectors(importance if scale is None else importance * scale.square(), spec)
    centroids = kmeans(vectors, 1 << spec.bits, weights=masses)
    nearest = assign(vectors, centroids, masses)
    return to_palette(nearest, centroids, weight.shape, spec, scale)
