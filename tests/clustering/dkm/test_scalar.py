"""Scalar DKM on a table, against dense float64 autograd and against what follows from the paper."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

from dkm_deploy.clustering.dkm import scalar
from dkm_deploy.clustering.dkm.soft_cluster import soft_cluster
from dkm_deploy.clustering.kmeans.kmeans import kmeans
from dkm_deploy.errors import DkmError
from tests.clustering.dkm.reference import dense_soft_cluster

_KINDS = ["gaussian", "heavy tail", "many zeros", "far from 0"]


def _weights(kind, count, groups=1, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    weights = 0.02 * torch.randn(groups, count, generator=generator, dtype=torch.float64)
    if kind == "heavy tail":
        weights[:, 0] = 50 * 0.02
    if kind == "many zeros":
        weights[:, ::2] = 0
    if kind == "far from 0":
        weights += 3
    return weights.to(dtype)[..., None]


def _case(kind, count, clusters, temperature, **options):
    weights = _weights(kind, count, **options)
    exact = weights.double()
    upstream = torch.randn(weights.shape, generator=torch.Generator().manual_seed(9))
    tau = temperature * exact.var(dim=(1, 2), correction=0)
    return weights, kmeans(exact, clusters), tau, upstream.to(weights.dtype)


def _both(cluster, weights, centroids, tau, iterations, upstream, **options):
    weights = weights.detach().clone().requires_grad_()
    soft, moved = cluster(weights, centroids, tau, iterations, **options)
    (gradient,) = torch.autograd.grad(soft, weights, upstream)
    return soft.detach().double(), gradient.double(), moved.double()


def _check_against_reference(case, iterations):
    weights, centroids, tau, upstream = case
    soft, gradient, moved = _both(soft_cluster, weights, centroids, tau, iterations, upstream)
    expected, expected_gradient, expected_moved = _both(
        dense_soft_cluster, weights.double(), centroids, tau, iterations, upstream.double()
    )
    span = (weights.amax() - weights.amin()).item()
    assert (soft - expected).abs().max() <= 1e-5 * span
    assert (gradient - expected_gradient).norm() <= 2e-3 * expected_gradient.norm()
    assert (moved - expected_moved).abs().max() <= 1e-5 * span


@pytest.mark.parametrize("temperature", [1e-4, 3e-3, 0.2])
@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("kind", _KINDS)
def test_it_is_the_dense_reference(kind, bits, temperature):
    _check_against_reference(_case(kind, 60_000, 1 << bits, temperature), iterations=3)


@pytest.mark.parametrize(("bits", "temperature"), [(8, 1e-4), (8, 0.01), (6, 0.2)])
def test_it_is_the_dense_reference_with_many_clusters(bits, temperature):
    _check_against_reference(_case("gaussian", 20_000, 1 << bits, temperature), iterations=2)


@pytest.mark.parametrize(("bits", "temperature"), [(1, 0.05), (2, 0.05), (4, 0.05), (4, 0.2)])
@pytest.mark.parametrize("kind", _KINDS[:3])
def test_float32_weights_are_the_dense_reference(kind, bits, temperature):
    """At these temperatures the grid is coarse, and positions are float32."""
    case = _case(kind, 150_000, 1 << bits, temperature, dtype=torch.float32)
    _check_against_reference(case, iterations=2)


@pytest.mark.parametrize("scale", [1e-36, 1e-20, 1e30])
def test_float32_weights_of_any_size_are_the_dense_reference(scale):
    weights, centroids, _, upstream = _case("gaussian", 150_000, 4, 0.05)
    weights, centroids = (scale * weights).float(), scale * centroids
    tau = 0.05 * weights.double().var(correction=0)[None]
    _check_against_reference((weights, centroids, tau, upstream.float()), iterations=1)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(_KINDS),
    st.integers(64, 4000),
    st.integers(1, 4),
    st.floats(1e-4, 0.2),
    st.integers(1, 10),
    st.integers(1, 3),
)
def test_small_groups_are_the_dense_reference(kind, count, bits, temperature, iterations, groups):
    case = _case(kind, count, 1 << bits, temperature, groups=groups, seed=count)
    _check_against_reference(case, iterations)


def test_a_heap_at_a_turn_does_not_mislead_the_table():
    """Centroids that move far in each iteration leave the cells that were cut fine for them."""
    weights = _weights("gaussian", 60_000)
    weights[:, :20_000] = 0.0123
    tau = 1e-4 * weights.var(dim=(1, 2))
    start = torch.tensor([-0.04, 0.01, 0.03, 0.05], dtype=torch.float64).reshape(1, 4, 1)
    upstream = torch.randn(weights.shape, generator=torch.Generator().manual_seed(1)).double()
    _check_against_reference((weights, start, tau, upstream), iterations=5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("count", [500, 100_000])
def test_dtypes_are_kept_and_cost_only_their_rounding(dtype, count):
    weights, centroids, tau, upstream = _case("gaussian", count, 4, 0.01, dtype=dtype)
    soft, moved = soft_cluster(weights.requires_grad_(), centroids.to(dtype), tau, 1)
    (gradient,) = torch.autograd.grad(soft, weights, upstream)
    assert soft.dtype == moved.dtype == gradient.dtype == dtype
    expected, _ = dense_soft_cluster(weights.double(), centroids.to(dtype).double(), tau, 1)
    span = (weights.amax() - weights.amin()).item()
    assert (soft.double() - expected).abs().max() <= (1e-5 + torch.finfo(dtype).eps) * span


@pytest.mark.parametrize("gradient", ["unrolled", "one_step"])
@pytest.mark.parametrize("kind", _KINDS)
def test_a_table_keeps_the_sum_and_gives_ones_back(kind, gradient):
    weights, centroids, tau, _ = _case(kind, 50_000, 4, 2e-3)
    ones = torch.ones_like(weights)
    soft, ones_back, _ = _both(soft_cluster, weights, centroids, tau, 3, ones, gradient=gradient)
    torch.testing.assert_close(soft.sum(), weights.sum(), rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(ones_back, ones, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("scale", "shift"), [(7.0, 0.0), (0.25, -40.0), (1.0, 1e3)])
def test_a_table_scales_and_shifts_with_the_weights(scale, shift):
    weights, centroids, tau, upstream = _case("gaussian", 50_000, 4, 2e-3)
    soft, gradient, _ = _both(soft_cluster, weights, centroids, tau, 2, upstream)
    other, other_gradient, _ = _both(
        soft_cluster,
        scale * weights + shift,
        scale * centroids + shift,
        scale**2 * tau,
        2,
        upstream,
    )
    torch.testing.assert_close(other, scale * soft + shift, rtol=0, atol=1e-8 * scale)
    torch.testing.assert_close(other_gradient, gradient, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("count", [300, 40_000])
def test_one_step_differentiates_the_last_iteration_only(count):
    weights, centroids, tau, upstream = _case("gaussian", count, 4, 0.01)
    _, gradient, _ = _both(soft_cluster, weights, centroids, tau, 3, upstream, gradient="one_step")
    before = dense_soft_cluster(weights, centroids, tau, 2)[1]
    _, expected, _ = _both(dense_soft_cluster, weights, before, tau, 1, upstream)
    assert (gradient - expected).norm() <= 2e-3 * expected.norm()


@pytest.mark.parametrize("count", [300, 40_000])
def test_implicit_is_what_endless_iterations_give(count):
    weights, centroids, tau, upstream = _case("gaussian", count, 3, 0.05)
    settled = soft_cluster(weights, centroids, tau, 1000)[1]
    gradients = {
        name: _both(soft_cluster, weights, settled, tau, steps, upstream, gradient=name)[1]
        for name, steps in [("implicit", 1), ("unrolled", 300), ("one_step", 1)]
    }
    expected = gradients["unrolled"]
    assert (gradients["implicit"] - expected).norm() <= 1e-3 * expected.norm()
    assert (gradients["one_step"] - expected).norm() >= 5e-3 * expected.norm()


@pytest.mark.parametrize("temperature", [1.9, 2.0, 0.4])
def test_implicit_stays_bounded_where_centroids_merge(temperature):
    weights, centroids, tau, upstream = _case("gaussian", 5000, 2, temperature)
    _, gradient, _ = _both(soft_cluster, weights, centroids, tau, 5, upstream, gradient="implicit")
    assert gradient.norm() <= 60 * upstream.norm()


@pytest.mark.parametrize("temperature", [0.0, 1e-12])
@pytest.mark.parametrize("count", [100, 100_000])
@pytest.mark.parametrize("gradient", ["unrolled", "implicit", "one_step"])
def test_no_temperature_is_hard_and_finite(count, temperature, gradient):
    weights, centroids, tau, upstream = _case("heavy tail", count, 8, temperature)
    soft, found, moved = _both(
        soft_cluster, weights, centroids, tau, 2, upstream, gradient=gradient
    )
    nearest = (soft - moved.mT).abs().amin(-1)
    assert (nearest > 1e-6).double().mean() <= 1e-3
    assert torch.isfinite(found).all()


def test_more_clusters_than_distinct_values():
    weights = torch.tensor([-1.0, 0.0, 0.25]).repeat(20_000).reshape(1, -1, 1).requires_grad_()
    soft, moved = soft_cluster(weights, kmeans(weights, 16), torch.tensor([1e-3]), 3)
    (gradient,) = torch.autograd.grad(soft.sum(), weights)
    torch.testing.assert_close(soft, weights, rtol=0, atol=1e-5)
    torch.testing.assert_close(gradient, torch.ones_like(weights), rtol=0, atol=1e-5)
    assert torch.isfinite(moved).all()


def test_a_centroid_that_nothing_attends_to_stays_on_a_table():
    weights = _weights("gaussian", 50_000)
    far = torch.tensor([0.0, 0.02, 1e3]).double().reshape(1, 3, 1)
    _, moved = soft_cluster(weights, far, torch.tensor([1e-5]).double(), 3)
    assert moved[0, 2, 0] == 1e3


def test_weights_that_are_not_finite_give_nan():
    weights = _weights("gaussian", 5000, groups=2)
    weights[1, 7] = torch.nan
    soft, _ = soft_cluster(weights, torch.zeros(2, 4, 1).double(), torch.ones(2).double(), 1)
    assert torch.isfinite(soft[0]).all()
    assert torch.isnan(soft[1]).all()


def test_little_is_kept_for_the_way_back():
    weights, centroids, tau, _ = _case("gaussian", 200_000, 16, 3e-3, dtype=torch.float32)
    kept = []
    weights.requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t):
        soft_cluster(weights, centroids, tau, 3)
    new = [t for t in kept if t.data_ptr() != weights.data_ptr()]
    assert sum(t.nbytes for t in new) < 0.1 * weights.numel()


def test_it_compiles_whole():
    weights, centroids, tau, _ = _case("gaussian", 3000, 4, 0.01)

    def loss(values):
        return soft_cluster(values, centroids, tau, 2)[0].square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    eager, traced = weights.clone().requires_grad_(), weights.clone().requires_grad_()
    loss(eager).backward()
    compiled(traced).backward()
    torch.testing.assert_close(traced.grad, eager.grad)


def test_it_can_be_checkpointed():
    weights, centroids, tau, upstream = _case("gaussian", 3000, 4, 0.01)
    plain, again = weights.clone().requires_grad_(), weights.clone().requires_grad_()
    soft_cluster(plain, centroids, tau, 2)[0].backward(upstream)
    soft = checkpoint(lambda w: soft_cluster(w, centroids, tau, 2)[0], again, use_reentrant=False)
    soft.backward(upstream)
    torch.testing.assert_close(again.grad, plain.grad)


def test_groups_do_not_mix(monkeypatch):
    weights, centroids, tau, upstream = _case("gaussian", 3000, 4, 0.05, groups=5)
    together = _both(soft_cluster, weights, centroids, tau, 2, upstream)
    monkeypatch.setattr(scalar, "_GROUPS_AT_ONCE", 1)
    apart = _both(soft_cluster, weights, centroids, tau, 2, upstream)
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("iterations", "gradient"), [(0, "unrolled"), (1, "exact")])
def test_wrong_use_is_named(iterations, gradient):
    weights, centroids, tau, _ = _case("gaussian", 100, 2, 0.1)
    with pytest.raises(DkmError, match="iterations is 0|gradient is 'exact'"):
        soft_cluster(weights, centroids, tau, iterations, gradient)
