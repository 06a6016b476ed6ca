"""Functions of a large symmetric matrix that is known only by its products with vectors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def capped_resolvent(
    product: Callable[[Tensor], Tensor],
    right: Tensor,
    *,
    floor: float,
    steps: int,
    tolerance: float,
) -> Tensor:
    """Solve ``(I - M) y = right`` by Lanczos, no direction amplified more than ``1 / floor``.

    The eigenvalues m of M on the Krylov space of ``right`` are known there, so y is
    ``f(M) right`` with ``f(m) = 1 / max(1 - m, floor)``: the exact inverse up to m = 1 - floor,
    and bounded beyond, whatever M is. Of an M that is not quite symmetric, the symmetric part of
    its projection is taken.

    Args:
        product: ``v -> M v`` for v ``(batch, n)``, one symmetric matrix a batch entry.
        right: float64, ``(batch, n)``.
        floor: above 0.
        steps: products, at most.
        tolerance: change by the last step, relative to y, at which to stop.

    Returns:
        y, ``(batch, n)``.
    """
    size = right.norm(dim=1, keepdim=True)
    basis = (right / torch.where(size > 0, size, 1))[:, None]
    projected = right.new_zeros(len(right), steps + 1, steps + 1)
    for step in range(steps):
        image = product(basis[:, -1])
        along, rest, length = _orthogonal(basis, image)
        projected[:, : step + 1, step] = along
        projected[:, step + 1, step] = length[:, 0]
        weights = _apply(projected[:, : step + 1, : step + 1], floor)
        change = length[:, 0] * weights[:, -1].abs()
        if (change <= tolerance * weights.norm(dim=1)).all():
            break
        basis = torch.cat([basis, rest[:, None]], dim=1)
    solution: Tensor = size * (weights[:, None] @ basis[:, : weights.shape[1]])[:, 0]
    return solution


def _orthogonal(basis: Tensor, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Parts of ``image`` along the basis, and the direction and length of the rest."""
    along = torch.zeros_like(basis[..., 0])
    rest = image
    for _ in range(2):  # once more: the first pass leaves rounding errors along the basis
        part = (basis @ rest[..., None])[..., 0]
        rest = rest - (part[:, None] @ basis)[:, 0]
        along = along + part
    length = rest.norm(dim=1, keepdim=True)
    # An invariant space is complete: what is left is rounding, not a direction.
    length = torch.where(length > 1e-12 * image.norm(dim=1, keepdim=True), length, 0)
    return along, torch.where(length > 0, rest / length, 0), length


def _apply(projected: Tensor, floor: float) -> Tensor:
    """First column of f(M) in the basis: ``(batch, steps)``."""
    # Upper Hessenberg. Its symmetric part equals it where M is symmetric.
    values, vectors = torch.linalg.eigh((projected + projected.mT) / 2)
    gains = 1 / (1 - values).clamp(min=floor)
    column: Tensor = (vectors * (gains * vectors[:, 0])[:, None]).sum(-1)
    return column
