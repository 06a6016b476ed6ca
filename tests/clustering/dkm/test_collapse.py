from __future__ import annotations

import pytest
import torch

from dkm_deploy.clustering.dkm.collapse import duplicates, forecast, separate_duplicates
from dkm_deploy.clustering.dkm.soft_cluster import soft_cluster
from dkm_deploy.clustering.kmeans.kmeans import kmeans


def _centroids(*values, dim=1):
    return torch.tensor(values).reshape(1, -1, 1).expand(-1, -1, dim).contiguous()


@pytest.mark.parametrize("dim", [1, 2])
def test_centroids_on_one_spot_are_found_whatever_their_order(dim):
    centroids = _centroids(1.0, -1.0, 1.0 + 1e-5, 0.3, -1.0, dim=dim)
    found = duplicates(centroids, torch.ones(1))
    assert found.sum() == 2
    assert duplicates(centroids[:, ~found[0]], torch.ones(1)).sum() == 0


def test_near_is_measured_in_deviations():
    centroids = _centroids(0.0, 1e-4, 2e-4, 3e-4)
    assert duplicates(centroids, torch.tensor([1e-4])).sum() == 0
    assert duplicates(centroids, torch.tensor([1.0])).sum() == 3


@pytest.mark.parametrize("dim", [1, 2])
def test_near_is_a_thousandth_of_a_deviation(dim):
    """Centroids of 8 bits are a hundredth apart: nearer by a factor of ten is one spot."""
    deviation, along = torch.tensor([2.0]), _centroids(1.0, dim=dim)
    for gap, found in ((0.0019, 1), (0.0021, 0)):
        moved = along.clone()
        moved[..., 0] += gap
        assert duplicates(torch.cat([along, moved], 1), deviation).sum() == found
    constant = _centroids(0.5, 0.5, dim=dim)
    assert duplicates(constant, torch.zeros(1)).sum() == 1


@pytest.mark.parametrize("dim", [1, 3])
def test_duplicates_are_sent_to_weights_and_the_rest_stays(dim):
    vectors = torch.randn(1, 500, dim, generator=torch.Generator().manual_seed(0))
    centroids = _centroids(-0.5, 0.5, 0.5, 0.5, dim=dim)
    apart, moved = separate_duplicates(centroids, vectors, torch.ones(1), torch.tensor(3))
    assert moved == 2
    assert duplicates(apart, torch.ones(1)).sum() == 0
    assert torch.equal(apart[0, :2], centroids[0, :2])
    for fresh in apart[0, 2:]:
        assert (vectors[0] == fresh).all(1).any()


@pytest.mark.parametrize(
    ("bits", "temperature", "collapses"),
    [(4, 4.05, True), (4, 0.25, True), (4, 0.02, False), (2, 4.05, True), (2, 0.1, False)],
)
def test_the_forecast_agrees_with_what_is_known(bits, temperature, collapses):
    """The fixed points of EM on Gaussian weights; a Gaussian merges wholly above 2 variances."""
    vectors = torch.randn(1, 4000, 1, generator=torch.Generator().manual_seed(1)).double()
    tau = temperature * vectors.var(dim=(1, 2))
    centroids = kmeans(vectors, 1 << bits)
    reason = forecast(vectors, centroids, lambda v, c: soft_cluster(v, c, tau, 1))
    assert (reason is not None) == collapses
