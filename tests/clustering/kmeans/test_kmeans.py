from __future__ import annotations

from itertools import combinations_with_replacement, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from dkm_deploy.clustering.kmeans.kmeans import assign, kmeans
from dkm_deploy.clustering.kmeans.scalar_dynamic_programming import PrefixSums, optimal_runs
from dkm_deploy.clustering.layout import from_vectors, to_palette, to_vectors
from dkm_deploy.palette_spec import PaletteSpec


def _error(vectors, centroids):
    nearest = assign(vectors, centroids)
    chosen = torch.stack([c[n] for c, n in zip(centroids, nearest, strict=True)])
    return (vectors - chosen).square().sum().item()


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("shape", ["gaussian", "heavy tail", "uniform", "two heaps"])
def test_scalar_k_means_is_as_good_as_scikit_learn_with_restarts(bits, shape):
    generator = torch.Generator().manual_seed(bits)
    values = torch.randn(3000, 1, generator=generator).double()
    if shape == "heavy tail":
        values[0] = 50
    if shape == "uniform":
        values = torch.rand(3000, 1, generator=generator).double()
    if shape == "two heaps":
        values[1500:] += 20
    peer = KMeans(1 << bits, n_init=5, random_state=0).fit(values.numpy())
    ours = _error(values[None], kmeans(values[None], 1 << bits))
    assert ours <= (1 + 1e-9) * peer.inertia_


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=1, max_size=9), st.integers(1, 3))
def test_scalar_k_means_is_optimal(values, bits):
    """Against every way to cut the sorted values."""
    ordered, clusters = sorted(values), 1 << bits
    least = min(
        sum(_squared_error(ordered[a:b]) for a, b in pairwise((0, *cuts, len(ordered))))
        for cuts in combinations_with_replacement(range(len(ordered) + 1), clusters - 1)
    )
    vectors = torch.tensor(values, dtype=torch.float64).reshape(1, -1, 1)
    assert _error(vectors, kmeans(vectors, clusters)) <= least + 1e-9


def _squared_error(values):
    return sum((v - sum(values) / len(values)) ** 2 for v in values)


@pytest.mark.parametrize(("bits", "count"), [(1, 40_000), (4, 40_000), (6, 20_000), (8, 5_000)])
@pytest.mark.parametrize(
    "shape", ["gaussian", "log-normal", "one at 50 sigma", "half zeros", "float16"]
)
def test_many_scalars_are_optimal_too(bits, count, shape):
    """Against dynamic programming over all values."""
    values = torch.randn(count, generator=torch.Generator().manual_seed(bits)).double()
    if shape == "float16":
        values = values.repeat(5).mul(torch.linspace(0.5, 1, 5 * count)).half().double()
    if shape == "log-normal":
        values = values.mul(2).exp()
    if shape == "one at 50 sigma":
        values[7] = 50
    if shape == "half zeros":
        values[::2] = 0
    points, counts = (t.numpy() for t in values.sub(values.mean()).unique(return_counts=True))
    sums = (np.cumsum(counts * points**power) for power in range(3))
    table = PrefixSums(*(np.concatenate([[0.0], column]) for column in sums))
    least = table.sum(optimal_runs(table, 1 << bits))
    vectors = values.reshape(1, -1, 1)
    assert _error(vectors, kmeans(vectors, 1 << bits)) <= (1 + 1e-9) * least


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("bits", [1, 2, 4, 6])
def test_values_of_any_size_have_clusters(bits, seed):
    """Of random bits: rounding makes errors of values that are far apart meaningless, not crash."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(-(2**31), 2**31 - 1, (400,), generator=generator).to(torch.int32)
    values = words.view(torch.float32)
    values = values[values.isfinite()]
    centroids = kmeans(values.reshape(1, -1, 1), 1 << bits).flatten()
    assert (centroids.diff() >= 0).all()
    assert values.min() <= centroids[0] <= centroids[-1] <= values.max()


def test_squares_of_large_float64_are_not_needed():
    values = torch.tensor([1e300, -1e300, 1.0, 2.0, 3.0, 5e299], dtype=torch.float64)
    centroids = kmeans(values.reshape(1, -1, 1), 4).flatten()
    assert centroids.tolist() == pytest.approx([-1e300, 2, 5e299, 1e300], rel=1e-12, abs=1e285)


@pytest.mark.parametrize("seed", range(4))
def test_zeros_of_a_pruned_weight_stay_zeros(seed):
    """Sums are rounded, which must not move the centroid of the zeros."""
    generator = torch.Generator().manual_seed(seed)
    weight = 0.1 * torch.rand(3000, generator=generator) - 0.03
    weight[weight.abs() < 0.02] = 0
    centroids = kmeans(weight.reshape(1, -1, 1), 16)
    assert 0.0 in centroids.flatten().tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_dtypes_lose_nothing_but_the_rounding_of_centroids(dtype):
    values = torch.randn(1, 300_000, 1, generator=torch.Generator().manual_seed(0)).to(dtype)
    exact = kmeans(values.double(), 16)
    assert torch.equal(kmeans(values, 16), exact.to(dtype))


@pytest.mark.parametrize("dim", [2, 4])
def test_vector_k_means_is_as_good_as_scikit_learn_with_restarts(dim):
    vectors = torch.randn(2000, dim, generator=torch.Generator().manual_seed(dim)).double()
    peer = KMeans(16, n_init=20, random_state=0).fit(vectors.numpy())
    ours = _error(vectors[None], kmeans(vectors[None], 16))
    assert ours <= 1.0001 * peer.inertia_


@pytest.mark.parametrize("dim", [1, 3])
def test_few_distinct_vectors_are_kept_exactly(dim):
    distinct = torch.tensor([[-1.0], [0.0], [0.25]]).expand(-1, dim)
    vectors = distinct[torch.randint(0, 3, (100,), generator=torch.Generator().manual_seed(0))]
    centroids = kmeans(vectors[None], 4)
    assert centroids.shape == (1, 4, dim)
    assert _error(vectors[None], centroids) == 0


def test_the_result_is_the_same_on_every_run():
    vectors = torch.randn(2, 300, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(kmeans(vectors, 8), kmeans(vectors.clone(), 8))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.sampled_from([2, 16, 256]))
def test_assign_is_the_nearest(seed, dim, clusters):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(2, 40, dim, generator=generator).double()
    centroids = torch.randn(2, clusters, dim, generator=generator).double()
    gaps = (vectors[:, :, None] - centroids[:, None]).square().sum(-1)
    taken = gaps.gather(2, assign(vectors, centroids)[..., None])[..., 0]
    torch.testing.assert_close(taken, gaps.amin(-1), rtol=1e-12, atol=0)


@pytest.mark.parametrize("clusters", [1, 16, 64])
@pytest.mark.parametrize("count", [1, 1 << 15, (1 << 15) + 1, 100_003])
def test_many_scalars_are_assigned_block_by_block_and_to_centroids_in_any_order(count, clusters):
    generator = torch.Generator().manual_seed(count)
    values = torch.randn(1, count, 1, generator=generator)
    centroids = torch.randn(1, clusters, 1, generator=generator)
    nearest = (values.double() - centroids.double().mT).abs().argmin(-1)
    assert torch.equal(assign(values, centroids), nearest)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("clusters", [2, 64])
def test_a_value_beside_the_middle_of_two_centroids_goes_to_the_nearer(dtype, clusters):
    """The middle is no number of the values' type: rounded up, it would take a value with it."""
    step = torch.finfo(dtype).eps
    levels = torch.arange(1, clusters + 1, dtype=torch.float64)
    centroids = torch.cat([levels[:1], levels[1:] + 4.6 * step])[None, :, None]
    middles = (centroids[0, 1:, 0] + centroids[0, :-1, 0]) / 2
    near = middles.to(dtype)
    values = torch.cat([near, *(torch.nextafter(near.float(), near.float() + s) for s in (-1, 1))])
    values = values.to(dtype)[None, :, None]
    nearest = (values.double() - centroids.mT).abs().argmin(-1)
    assert torch.equal(assign(values, centroids), nearest)


@pytest.mark.parametrize("clusters", [2, 64])
def test_a_value_in_the_middle_goes_to_the_lower(clusters):
    centroids = 2.0 * torch.arange(clusters)[None, :, None]
    values = centroids[:, :-1] + 1
    assert torch.equal(assign(values, centroids), torch.arange(clusters - 1)[None])


@st.composite
def _weights_and_specs(draw):
    rank = draw(st.integers(2, 5))
    shape = [draw(st.integers(1, 4)) for _ in range(rank)]
    axis, dim = draw(st.integers(0, rank - 1)), draw(st.integers(1, 3))
    groups = draw(st.integers(1, 3))
    shape[axis] *= dim * groups
    size = shape[axis] // groups if groups > 1 else None
    return tuple(shape), PaletteSpec(8, dim, axis, size)


@settings(max_examples=80, deadline=None)
@given(_weights_and_specs())
def test_vectors_go_back_to_their_weight(case):
    shape, spec = case
    weight = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
    assert torch.equal(from_vectors(to_vectors(weight, spec), shape, spec), weight)


@settings(max_examples=80, deadline=None)
@given(_weights_and_specs())
def test_a_palette_decodes_to_the_assigned_centroids(case):
    shape, spec = case
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    vectors = to_vectors(weight, spec)
    centroids = kmeans(vectors, 256, iterations=3)
    nearest = assign(vectors, centroids)
    chosen = torch.stack([c[n] for c, n in zip(centroids, nearest, strict=True)])
    palette = to_palette(nearest, centroids, shape, spec)
    assert palette.shape == shape
    expected = from_vectors(chosen, shape, spec)
    assert torch.equal(torch.tensor(palette.decode()), expected)
