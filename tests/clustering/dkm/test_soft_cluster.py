"""The invariants of DKM, from section 3.2 of the paper and from what follows from it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dkm_deploy.clustering.dkm.soft_cluster import soft_cluster
from dkm_deploy.clustering.kmeans.kmeans import assign, kmeans

_CASES = st.tuples(
    st.integers(0, 10**6),  # seed
    st.integers(1, 3),  # groups
    st.integers(20, 200),  # vectors
    st.integers(1, 4),  # dim
    st.sampled_from([2, 4, 8]),  # clusters
    st.floats(1e-3, 0.2),  # temperature over the variance
    st.integers(1, 3),  # iterations
)


def _case(seed, groups, count, dim, clusters, temperature, iterations):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(groups, count, dim, generator=generator, dtype=torch.float64)
    centroids = vectors[:, :clusters].clone()
    tau = temperature * vectors.var(dim=(1, 2), correction=0)
    return vectors, centroids, tau, iterations


@settings(max_examples=40, deadline=None)
@given(_CASES)
def test_the_sum_of_the_weights_is_kept(case):
    vectors, *rest = _case(*case)
    soft, _ = soft_cluster(vectors, *rest)
    torch.testing.assert_close(soft.sum(1), vectors.sum(1), rtol=0, atol=1e-10)


@settings(max_examples=40, deadline=None)
@given(_CASES)
def test_an_upstream_gradient_of_ones_comes_back_as_ones(case):
    vectors, *rest = _case(*case)
    vectors.requires_grad_()
    (gradient,) = torch.autograd.grad(soft_cluster(vectors, *rest)[0].sum(), vectors)
    torch.testing.assert_close(gradient, torch.ones_like(gradient), rtol=0, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(_CASES, st.floats(0.01, 100), st.floats(-10, 10))
def test_scale_and_shift_pass_through(case, scale, shift):
    vectors, centroids, tau, iterations = _case(*case)
    soft, moved = soft_cluster(vectors, centroids, tau, iterations)
    other, other_moved = soft_cluster(
        scale * vectors + shift, scale * centroids + shift, scale**2 * tau, iterations
    )
    size = scale * vectors.abs().max().item() + abs(shift)
    torch.testing.assert_close(other, scale * soft + shift, rtol=0, atol=1e-9 * size)
    torch.testing.assert_close(other_moved, scale * moved + shift, rtol=0, atol=1e-9 * size)


@settings(max_examples=40, deadline=None)
@given(_CASES)
def test_the_soft_weights_lie_among_the_centroids(case):
    vectors, *rest = _case(*case)
    soft, centroids = soft_cluster(vectors, *rest)
    assert (soft <= centroids.amax(1, keepdim=True) + 1e-12).all()
    assert (soft >= centroids.amin(1, keepdim=True) - 1e-12).all()


def test_one_step_is_the_papers_formula():
    weights = torch.tensor([-1.0, -0.5, 0.2, 0.9], dtype=torch.float64)
    centroids, tau = torch.tensor([-0.8, 0.5], dtype=torch.float64), 0.3
    scores = torch.exp(-((weights[:, None] - centroids) ** 2) / tau)
    attention = scores / scores.sum(1, keepdim=True)
    updated = (attention * weights[:, None]).sum(0) / attention.sum(0)
    soft, moved = soft_cluster(
        weights.reshape(1, 4, 1),
        centroids.reshape(1, 2, 1),
        torch.tensor([tau], dtype=torch.float64),
        iterations=1,
    )
    torch.testing.assert_close(moved.flatten(), updated, rtol=0, atol=1e-15)
    torch.testing.assert_close(soft.flatten(), attention @ updated, rtol=0, atol=1e-15)


def test_the_gradient_is_the_gradient():
    vectors = torch.randn(2, 7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    centroids, tau = kmeans(vectors, 4), torch.tensor([0.2, 0.3], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda v: soft_cluster(v, centroids, tau, 3)[0], (vectors.requires_grad_(),)
    )


def test_a_cold_layer_is_hard_k_means():
    vectors = torch.randn(1, 500, 1, generator=torch.Generator().manual_seed(4)).double()
    centroids = kmeans(vectors, 4)
    soft, moved = soft_cluster(vectors, centroids, torch.tensor([1e-9], dtype=torch.float64), 1)
    hard = moved[0, assign(vectors, centroids)[0]]
    torch.testing.assert_close(soft[0], hard, rtol=0, atol=1e-9)


@pytest.mark.parametrize("value", [0.0, 3.5, -1e-4])
def test_equal_weights_are_returned_as_they_are(value):
    vectors = torch.full((1, 50, 1), value, requires_grad=True)
    soft, centroids = soft_cluster(vectors, kmeans(vectors, 4), torch.zeros(1), 2)
    torch.testing.assert_close(soft, vectors, rtol=1e-6, atol=0)
    (gradient,) = torch.autograd.grad(soft.sum(), vectors)
    assert torch.isfinite(gradient).all()
    assert torch.isfinite(centroids).all()


def test_a_centroid_that_nothing_attends_to_stays():
    vectors = torch.tensor([0.0, 0.1, 1.0]).reshape(1, 3, 1)
    far = torch.tensor([0.0, 1.0, 1e3]).reshape(1, 3, 1)
    _, moved = soft_cluster(vectors, far, torch.tensor([1e-3]), 3)
    assert moved[0, 2, 0] == 1e3
