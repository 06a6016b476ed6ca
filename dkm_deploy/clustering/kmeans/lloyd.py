"""Lloyd's algorithm for vectors, in float64.

Of many vectors only those are looked at again that may have another nearest centroid: the margin
of a vector, its distance to the second nearest less that to the nearest, shrinks by no more than
the two have moved (Hamerly 2010, "Making k-means even faster", with both bounds in one number).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

_BLOCK = 1 << 16  # distances held at a time: what the cache of a core holds
_MANY = 1 << 14  # vectors from which margins are worth their keeping


def lloyd(vectors: Tensor, masses: Tensor | None, centroids: Tensor, iterations: int) -> Tensor:
    """Centroids after some iterations, or once no vector changes sides.

    Args:
        vectors: float64, ``(count, dim)``.
        masses: how much each squared difference counts, shaped alike or ``(count, 1)``, above 0;
            None is 1 each.
        centroids: where to start, ``(clusters, dim)``. One without vectors stays where it is.
        iterations: at most.
    """
    sides = (_Margins if len(vectors) >= _MANY else _Sides)(vectors, masses)
    for _ in range(iterations):
        updated = sides.means(centroids)
        if torch.equal(updated, centroids):
            break
        centroids = updated
    return centroids


class _Sides:
    """Which centroid each vector is nearest to; all are looked at each time."""

    def __init__(self, vectors: Tensor, masses: Tensor | None) -> None:
        self._vectors, self._masses = vectors, masses
        weights = torch.ones_like(vectors[:, :1]) if masses is None else masses
        # Counted column by column, which is several times as fast as adding row by row.
        self._mass, self._moment = (t.T.contiguous() for t in (weights, weights * vectors))

    def means(self, centroids: Tensor) -> Tensor:
        """The mean of the vectors of each centroid."""
        places = self._places(centroids)
        mass, moment = (
            torch.stack([torch.bincount(places, row, len(centroids)) for row in rows], 1)
            for rows in (self._mass, self._moment)
        )
        least = torch.finfo(mass.dtype).tiny
        return torch.where(mass > 0, moment / mass.clamp(min=least), centroids)

    def _places(self, centroids: Tensor) -> Tensor:
        return nearest(self._vectors, self._masses, centroids)


class _Margins(_Sides):
    """The same, but once all were looked at only those are again whose margin is used up."""

    _before: Tensor | None = None
    _nearest: Tensor
    _margin: Tensor

    def _places(self, centroids: Tensor) -> Tensor:
        if self._before is None:
            found = _with_margins(self._vectors, self._masses, centroids)
            self._nearest, self._margin = found
        else:
            self._follow((centroids - self._before).norm(dim=1), centroids)
        self._before = centroids
        return self._nearest

    def _follow(self, moved: Tensor, centroids: Tensor) -> None:
        """See the module."""
        (most, second), (place, _) = moved.topk(2)
        others = torch.full_like(moved, float(most))
        others[place] = second
        self._margin -= (moved + others)[self._nearest]
        doubtful = (self._margin <= 0).nonzero()[:, 0]
        masses = None if self._masses is None else self._masses[doubtful]
        found, margin = _with_margins(self._vectors[doubtful], masses, centroids)
        self._nearest[doubtful], self._margin[doubtful] = found, margin


def nearest(vectors: Tensor, masses: Tensor | None, centroids: Tensor) -> Tensor:
    """The nearest centroid of each vector, int64; rounding decides where two are as near."""
    return torch.cat([block.min(0).indices for block in gaps(vectors, masses, centroids)])


def gaps(vectors: Tensor, masses: Tensor | None, centroids: Tensor) -> Iterator[Tensor]:
    """Squared distances ``(clusters, block)``, up to :func:`squared_lengths` of each vector.

    Centroids come first because minima over the first dimension are several times as fast.
    """
    size = max(1, _BLOCK // len(centroids))
    squares, twice = centroids.square(), -2 * centroids
    if masses is None:
        for block in torch.split(vectors, size):
            yield torch.addmm(squares.sum(1)[:, None], twice, block.T)
        return
    summed = squares if masses.shape[1] > 1 else squares.sum(1, keepdim=True)
    for block, mass in zip(torch.split(vectors, size), torch.split(masses, size), strict=True):
        yield torch.addmm(summed @ mass.T, twice, (mass * block).T)


def squared_lengths(differences: Tensor, masses: Tensor | None) -> Tensor:
    """The squared length of each row, ``(count,)``."""
    squares = differences.square()
    return (squares if masses is None else masses * squares).sum(1)


def two_nearest(
    vectors: Tensor, masses: Tensor | None, centroids: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The nearest centroid of each vector, and the squared distances to it and to the second."""
    found, two = [], []
    for block in gaps(vectors, masses, centroids):
        least, place = block.min(0)
        second = block.scatter_(0, place[None], torch.inf).amin(0)
        found.append(place)
        two.append(torch.stack([least, second]))
    near, far = (torch.cat(two, 1) + squared_lengths(vectors, masses)).clamp(min=0)
    return torch.cat(found), near, far


def _with_margins(
    vectors: Tensor, masses: Tensor | None, centroids: Tensor
) -> tuple[Tensor, Tensor]:
    """The nearest centroid of each vector, and its margin in units of the vectors."""
    found, near, far = two_nearest(vectors, masses, centroids)
    # Masses stretch what a centroid moves by no more than the largest of them.
    stretch = 1.0 if masses is None else masses.amax(1).sqrt()
    return found, (far.sqrt() - near.sqrt()) / stretch
