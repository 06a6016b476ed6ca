"""Attention as pairs is attention as a matrix, for whatever is done with it."""

from __future__ import annotations

import torch

from dkm_deploy.clustering.dkm.soft_cluster import soft_cluster
from dkm_deploy.clustering.dkm.vector_attention import Matrix, Pairs, attend_


def _logits(scale):
    generator = torch.Generator().manual_seed(0)
    return scale * torch.randn(2, 40, 256, generator=generator, dtype=torch.float64)


def _rows(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_pairs_do_what_the_matrix_does():
    logits = _logits(100.0)
    pairs, matrix = attend_(logits.clone(), exact=False), attend_(logits.clone(), exact=True)
    assert isinstance(pairs, Pairs)
    assert isinstance(matrix, Matrix)
    rows, columns, expected = _rows(2, 40, 5), _rows(2, 256, 5), _rows(2, 40, 1)
    torch.testing.assert_close(pairs.read(columns), matrix.read(columns))
    torch.testing.assert_close(pairs.pool(rows), matrix.pool(rows))
    pulls = [one.pull(rows, columns, expected) for one in (pairs, matrix)]
    torch.testing.assert_close(pulls[0].read(columns), pulls[1].read(columns))
    torch.testing.assert_close(pulls[0].pool(rows), pulls[1].pool(rows))


def test_attention_to_many_is_a_matrix():
    assert isinstance(attend_(_logits(1.0), exact=False), Matrix)


def test_what_is_not_a_number_stays():
    logits = _logits(100.0)
    logits[1, 3, 7] = torch.nan
    found = attend_(logits, exact=False).read(_rows(2, 256, 5))
    assert found[1, 3].isnan().all()
    assert found[0].isfinite().all()


def test_a_centroid_that_only_cut_off_attention_reaches_moves_as_it_should():
    """Its nearest vector attends to it with e**-100 of the whole, below the cut of pairs."""
    generator = torch.Generator().manual_seed(0)
    vectors = 0.01 * torch.randn(1, 3000, 2, generator=generator, dtype=torch.float64)
    centroids = vectors[:, :256].clone()
    outmost = vectors[0, vectors[0].norm(dim=1).argmax()]
    centroids[0, :2] = torch.stack([outmost * (1 + 3.2e-3 / outmost.norm()), outmost])
    tau = torch.tensor([1e-7], dtype=torch.float64)
    _, moved = soft_cluster(vectors, centroids, tau, 1)
    attention = (-torch.cdist(vectors[0], centroids[0]).square() / tau).softmax(1)[:, 0]
    assert 0 < attention.sum() < 1e-40
    expected = (attention[:, None] * vectors[0]).sum(0) / attention.sum()
    torch.testing.assert_close(moved[0, 0], expected, rtol=0, atol=1e-8)
