from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dkm_deploy.clustering.kmeans import lloyd as module
from dkm_deploy.clustering.kmeans.lloyd import lloyd, nearest, two_nearest


def _plain(vectors, masses, centroids, iterations):
    """Lloyd's algorithm as it is defined, one centroid after the other."""
    masses = torch.ones_like(vectors) if masses is None else masses
    for _ in range(iterations):
        gaps = (masses[:, None] * (vectors[:, None] - centroids).square()).sum(2)
        places = gaps.argmin(1)
        means = [
            (masses * vectors)[places == j].sum(0) / masses[places == j].sum(0)
            if (places == j).any()
            else centroids[j]
            for j in range(len(centroids))
        ]
        centroids = torch.stack(means)
    return centroids


def _data(count, dim, clusters, weighted, seed=0):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(count, dim, generator=generator, dtype=torch.float64)
    masses = 1 + torch.rand(count, dim, generator=generator, dtype=torch.float64) ** 3 * 50
    return vectors, masses if weighted else None, vectors[:clusters].clone()


@pytest.mark.parametrize("many", [0, 1 << 30])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("dim", "clusters"), [(2, 2), (2, 16), (4, 8), (3, 21)])
def test_as_defined_with_margins_and_without(monkeypatch, many, weighted, dim, clusters):
    monkeypatch.setattr(module, "_MANY", many)
    data = _data(3000, dim, clusters, weighted)
    torch.testing.assert_close(lloyd(*data, 25), _plain(*data, 25), rtol=1e-12, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 40), st.integers(1, 4), st.integers(2, 6), st.booleans(), st.integers(0, 99))
def test_margins_change_nothing(count, dim, clusters, weighted, seed):
    vectors, masses, _ = _data(count, dim, clusters, weighted, seed)
    start = torch.randn(clusters, dim, dtype=torch.float64, generator=torch.manual_seed(seed))
    found = []
    for many in (0, 1 << 30):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_MANY", many)
            found.append(lloyd(vectors, masses, start, 30))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


def test_with_margins_few_vectors_are_looked_at_again(monkeypatch):
    looked_at = []
    monkeypatch.setattr(
        module, "gaps", lambda v, *rest, _of=module.gaps: looked_at.append(len(v)) or _of(v, *rest)
    )
    vectors, _, start = _data(1 << 15, 4, 8, weighted=False)
    lloyd(vectors, None, start, 60)
    assert looked_at[0] == len(vectors)
    assert sum(looked_at[20:]) < 0.15 * len(vectors) * len(looked_at[20:])


@pytest.mark.parametrize("many", [0, 1 << 30])
def test_a_centroid_without_vectors_stays(monkeypatch, many):
    monkeypatch.setattr(module, "_MANY", many)
    vectors = torch.tensor([[0.0, 0.0], [1.0, 0.0], [10.0, 0.0]], dtype=torch.float64)
    start = torch.tensor([[0.0, 0.0], [9.0, 0.0], [50.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor([[0.5, 0.0], [10.0, 0.0], [50.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(lloyd(vectors, None, start, 10), expected)


def test_it_stops_where_nothing_changes():
    vectors, _, start = _data(500, 2, 4, weighted=False)
    settled = lloyd(vectors, None, start, 500)
    assert torch.equal(lloyd(vectors, None, settled, 5), settled)
    assert torch.equal(lloyd(vectors, None, start, 1_000_000), settled)


@pytest.mark.parametrize("weighted", [False, True])
def test_two_nearest(weighted):
    vectors, masses, centroids = _data(200, 3, 5, weighted)
    counted = torch.ones_like(vectors) if masses is None else masses
    gaps = (counted[:, None] * (vectors[:, None] - centroids).square()).sum(2)
    least, places = gaps.sort(1)
    found, near, far = two_nearest(vectors, masses, centroids)
    assert torch.equal(found, places[:, 0])
    assert torch.equal(found, nearest(vectors, masses, centroids))
    torch.testing.assert_close(near, least[:, 0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(far, least[:, 1], rtol=1e-9, atol=1e-12)
