from __future__ import annotations

from itertools import combinations_with_replacement, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from dkm_deploy.clustering.kmeans.kmeans import assign, kmeans
from dkm_deploy.clustering.kmeans_palette import cluster
from dkm_deploy.palette_spec import PaletteSpec


def _error(vectors, centroids, weights):
    nearest = assign(vectors, centroids, weights)
    chosen = torch.stack([c[n] for c, n in zip(centroids, nearest, strict=True)])
    return (weights * (vectors - chosen).square()).sum().item()


_POINTS = st.lists(st.tuples(st.integers(-50, 50), st.integers(0, 5)), min_size=1, max_size=9)


@settings(max_examples=60, deadline=None)
@given(_POINTS, st.integers(1, 3))
def test_weighted_scalars_are_optimal(points, bits):
    """Against every way to cut the sorted values; many weights are zero."""
    ordered, clusters = sorted(points), 1 << bits
    least = min(
        sum(_squared_error(ordered[a:b]) for a, b in pairwise((0, *cuts, len(ordered))))
        for cuts in combinations_with_replacement(range(len(ordered) + 1), clusters - 1)
    )
    values, weights = torch.tensor(points, dtype=torch.float64).T.reshape(2, 1, -1, 1)
    # A weight of zero counts as a millionth of the mean.
    slack = 1e-6 * 5 * 100**2 * len(points)
    assert _error(values, kmeans(values, clusters, weights=weights), weights) <= least + slack


def _squared_error(points):
    total = sum(w for _, w in points)
    mean = sum(v * w for v, w in points) / total if total else 0
    return sum(w * (v - mean) ** 2 for v, w in points)


@pytest.mark.parametrize("count", [3_000, 200_000])
def test_many_weighted_scalars_are_as_good_as_scikit_learn(count):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(1, count, 1, generator=generator).double()
    weights = torch.rand(1, count, 1, generator=generator).double() ** 4
    weights[:, ::3] = 0
    peer = KMeans(16, n_init=3, random_state=0)
    peer.fit(values[0].numpy(), sample_weight=weights[0, :, 0].numpy())
    assert _error(values, kmeans(values, 16, weights=weights), weights) <= peer.inertia_


def test_weighted_vectors_are_as_good_as_the_best_of_many_starts():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(1, 2_000, 2, generator=generator).double()
    weights = torch.rand(1, 2_000, 1, generator=generator).double().expand(-1, -1, 2) ** 2
    peer = KMeans(16, n_init=20, random_state=0)
    peer.fit(vectors[0].numpy(), sample_weight=weights[0, :, 0].numpy())
    assert _error(vectors, kmeans(vectors, 16, weights=weights), weights) <= 1.0001 * peer.inertia_


@pytest.mark.parametrize("dim", [1, 2])
def test_equal_weights_change_nothing(dim):
    vectors = torch.randn(2, 500, dim, generator=torch.Generator().manual_seed(0)).double()
    plain = kmeans(vectors, 8)
    weighted = kmeans(vectors, 8, weights=torch.full_like(vectors, 0.25))
    torch.testing.assert_close(weighted, plain, rtol=1e-9, atol=1e-9)
    assert torch.equal(assign(vectors, plain, torch.ones_like(vectors)), assign(vectors, plain))


@pytest.mark.parametrize("dim", [1, 2])
def test_a_group_of_zero_weights_is_plain(dim):
    vectors = torch.randn(2, 100, dim, generator=torch.Generator().manual_seed(0))
    weights = torch.zeros_like(vectors)
    weights[1] = 1
    assert torch.equal(kmeans(vectors, 4, weights=weights)[0], kmeans(vectors, 4)[0])


def test_one_weight_that_counts_gets_a_centroid_of_its_own():
    vectors = torch.linspace(-1, 1, 100).reshape(1, -1, 1)
    weights = torch.full_like(vectors, 1e-4)
    weights[0, 37] = 1e6
    centroids = kmeans(vectors, 4, weights=weights)
    assert (centroids - vectors[0, 37]).abs().min() < 1e-5


def test_each_value_of_a_vector_has_a_weight_of_its_own():
    """What counts in the first value only is clustered by the first value."""
    generator = torch.Generator().manual_seed(0)
    first = torch.tensor([-1.0, 0, 1, 2]).repeat(50)
    vectors = torch.stack([first, torch.randn(200, generator=generator)], 1)[None]
    weights = torch.tensor([1.0, 0]).expand_as(vectors)
    centroids = kmeans(vectors, 4, weights=weights)
    assert torch.allclose(centroids[0, :, 0].sort().values, torch.tensor([-1.0, 0, 1, 2]))
    chosen = centroids[0, assign(vectors, centroids, weights)[0], 0]
    assert torch.allclose(chosen, first)


def test_a_scale_of_channels_counts_in_the_importance():
    """An error in scaled units is worth the scale squared."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 64, generator=generator) * torch.tensor([[0.1], [1], [1], [10]])
    scaled = PaletteSpec(bits=2, per_channel_scale=True)
    alike = cluster(weight, scaled, torch.ones_like(weight)).decode()
    plain = cluster(weight, scaled).decode()
    assert _squares(alike - weight.numpy()) < _squares(plain - weight.numpy())


def _squares(gap):
    return float(np.square(gap).sum())
