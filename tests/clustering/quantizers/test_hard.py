from __future__ import annotations

import pytest
import torch

from dkm_deploy.clustering.kmeans.kmeans import assign, kmeans
from dkm_deploy.clustering.quantizers.hard import hard_cluster


def _case(dim=1, clusters=4):
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(2, 60, dim, generator=generator, dtype=torch.float64)
    return vectors.requires_grad_(), kmeans(vectors[:, :30], clusters), generator


@pytest.mark.parametrize("dim", [1, 3])
def test_the_forward_pass_is_one_step_of_lloyd(dim):
    vectors, centroids, _ = _case(dim)
    hard, updated = hard_cluster(vectors, centroids)
    nearest = assign(vectors, centroids)
    for group in range(2):
        for j in range(4):
            members = vectors[group][nearest[group] == j]
            torch.testing.assert_close(updated[group, j], members.mean(0))
    assert torch.equal(hard, torch.stack([u[n] for u, n in zip(updated, nearest, strict=True)]))


def test_the_gradient_is_passed_straight_through():
    vectors, centroids, generator = _case()
    upstream = torch.randn(vectors.shape, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(hard_cluster(vectors, centroids)[0], vectors, upstream)
    assert torch.equal(gradient, upstream)


def test_ewgs_scales_it_by_sign_and_distance():
    """Equation 6 of EWGS: g (1 + delta sign(g) (x - x_q)), x in units of the range."""
    vectors, centroids, generator = _case()
    upstream = torch.randn(vectors.shape, generator=generator, dtype=torch.float64)
    hard, updated = hard_cluster(vectors, centroids, 0.1)
    (gradient,) = torch.autograd.grad(hard, vectors, upstream)
    span = updated.amax(1, keepdim=True) - updated.amin(1, keepdim=True)
    expected = upstream * (1 + 0.1 * upstream.sign() * (vectors - hard) / span)
    torch.testing.assert_close(gradient, expected.detach())
    assert not torch.equal(gradient, upstream)


def test_a_centroid_without_members_stays():
    vectors = torch.tensor([0.0, 0.1, 0.2]).reshape(1, 3, 1)
    _, updated = hard_cluster(vectors, torch.tensor([0.1, 50.0]).reshape(1, 2, 1))
    torch.testing.assert_close(updated.flatten(), torch.tensor([0.1, 50.0]))


def test_equal_weights_are_themselves():
    vectors = torch.full((1, 9, 1), 0.25, requires_grad=True)
    hard, _ = hard_cluster(vectors, torch.full((1, 4, 1), 0.25), 1e-3)
    hard.sum().backward()
    assert torch.equal(hard, vectors)
    assert torch.isfinite(vectors.grad).all()
