"""Discrete Fourier transforms as products with matrices of cosines and sines."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.fx import Node

from converters.coreml.decompositions.graph_writer import GraphWriter

_aten = torch.ops.aten
_POWERS = (0.0, -0.5, -1.0)  # of the number of values, by ATen's number


def transform(
    w: GraphWriter, real: Node, imag: Node | None, dims: Sequence[int], norm: int, *, forward: bool
) -> tuple[Node, Node]:
    """Both parts of a transform, a dimension after the other.

    Args:
        w: writes the calls.
        real: part of the values.
        imag: the other part; None if that is zero.
        dims: the dimensions, of which the sum goes over ``2 pi k n / length``.
        norm: what it is divided by: 0 nothing, 1 the root of the number of values, 2 this number.
        forward: whether by ``exp(-i ..)``, else by ``exp(i ..)``.
    """
    scale = math.prod(real.meta["val"].shape[dim] for dim in dims) ** _POWERS[norm]
    for place, dim in enumerate(dims):
        length = real.meta["val"].shape[dim]
        cos, sin = _waves(length, length, scale if place == 0 else 1.0)
        sin = sin if forward else -sin
        of_real = [_along(w, real, matrix, dim) for matrix in (cos, -sin)]
        if imag is None:
            real, imag = of_real
        else:
            of_imag = [_along(w, imag, matrix, dim) for matrix in (sin, cos)]
            real, imag = (w.add(a, b) for a, b in zip(of_real, of_imag, strict=True))
    if imag is None:
        imag = w.call(_aten.zeros_like.default, real)
    return real, imag


def to_real(
    w: GraphWriter, real: Node, imag: Node, dims: Sequence[int], norm: int, length: int
) -> Node:
    """The real values of so many whose transform is given up to half its length."""
    shape = real.meta["val"].shape
    count = math.prod(shape[dim] for dim in dims[:-1]) * length
    if len(dims) > 1:
        real, imag = transform(w, real, imag, dims[:-1], 0, forward=False)
    half = length // 2 + 1
    cos, sin = _waves(half, length, count ** _POWERS[norm])
    twice = torch.full((half, 1), 2.0)
    twice[0] = 1
    if length % 2 == 0:
        twice[-1] = 1
    kept = [
        part if shape[dims[-1]] == half else w.call(_aten.slice.Tensor, part, dims[-1], 0, half)
        for part in (real, imag)
    ]
    parts = zip(kept, (cos * twice, sin * twice), strict=True)
    return w.sub(*(_along(w, part, matrix, dims[-1]) for part, matrix in parts))


def _waves(rows: int, length: int, scale: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of ``2 pi k n / length``, (rows, length) float32, times a scale."""
    turns = torch.arange(rows)[:, None] * torch.arange(length)[None] % length
    angles = turns.double() * (2 * math.pi / length)
    cos, sin = (wave.round(decimals=15) * scale for wave in (angles.cos(), angles.sin()))
    return cos.float(), sin.float()


def _along(w: GraphWriter, x: Node, matrix: Tensor, dim: int) -> Node:
    """``x`` times a matrix along a dimension."""
    weights, last = w.constant(matrix), x.meta["val"].ndim - 1
    if dim % (last + 1) == last:
        return w.call(_aten.matmul.default, x, weights)
    turned = w.call(_aten.transpose.int, x, dim, last)
    return w.call(_aten.transpose.int, w.call(_aten.matmul.default, turned, weights), dim, last)
