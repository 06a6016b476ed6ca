"""Cells: fewer vectors that cost what all of them cost."""

import pytest
import torch

from dkm_deploy.clustering.kmeans.vector_cells import cells, merge_equal


def _normal(count: int, dim: int) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(0)).double()


def _error(vectors: torch.Tensor, masses: torch.Tensor, centroids: torch.Tensor) -> float:
    gaps = (vectors[:, None] - centroids).square() * masses[:, None]
    return float(gaps.sum(2).amin(1).sum())


def test_equal_vectors_become_one_with_their_masses():
    vectors = torch.tensor([[2.0, 1.0], [0.0, 1.0], [2.0, 1.0]]).double()
    distinct, masses = merge_equal(
        vectors, torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]).double()
    )
    assert distinct.tolist() == [[0.0, 1.0], [2.0, 1.0]]
    assert masses.tolist() == [[3.0, 4.0], [6.0, 8.0]]
    assert merge_equal(vectors, None)[1].tolist() == [[1.0], [2.0]]


@pytest.mark.parametrize("weighted", [False, True])
def test_cells_keep_the_masses_and_the_weighted_sum(weighted):
    vectors = _normal(5_000, 3)
    masses = torch.exp(_normal(5_000, 3)) if weighted else torch.ones_like(vectors)
    means, sums = cells(vectors, masses, 512)
    assert 256 < len(means) <= 512
    torch.testing.assert_close(sums.sum(0), masses.sum(0))
    torch.testing.assert_close((means * sums).sum(0), (vectors * masses).sum(0))


def test_centroids_are_as_good_on_cells_as_on_all():
    vectors = _normal(20_000, 2)
    ones = torch.ones_like(vectors)
    means, sums = cells(vectors, ones, 1 << 12)
    within = float(vectors.square().sum() - (sums * means.square()).sum())
    for centroids in _normal(160, 2).split(16):
        on_cells = _error(means, sums, centroids) + within
        assert on_cells == pytest.approx(_error(vectors, ones, centroids), rel=3e-3)


def test_few_vectors_are_left_as_they_are():
    vectors = _normal(100, 2)
    means, masses = cells(vectors, torch.full_like(vectors, 2.0), 128)
    assert torch.equal(means, vectors)
    assert masses.unique().tolist() == [2.0]


def test_vectors_all_equal_but_one_are_told_apart():
    vectors = torch.zeros(1_000, 2).double()
    vectors[7] = torch.tensor([1e-6, 3.0])
    means, _ = cells(vectors, torch.ones_like(vectors), 16)
    assert sorted(means[:, 1].tolist()) == [0.0, 3.0]
