"""How far the values of a weight reach, as penalties that a gradient can lower.

Kundu, Yoo, Mishra, Cho and Adya 2023, R2 loss (arXiv 2303.08253): three penalties while a model
trains in full precision, so that no outliers spread the range that few centroids must cover. The
abstract was at hand, the paper was not: the formulas are as others tell of them, what is ours is
said. Each takes a weight of any shape and gives a scalar, float32 or wider.
"""

from __future__ import annotations

import torch
from torch import Tensor


def largest_magnitude(weight: Tensor) -> Tensor:
    """``max |w|``; the gradient reaches the largest values alone."""
    return _wide_dtype(weight).abs().amax()


def overshoot_penalty(weight: Tensor, margin: Tensor) -> Tensor:
    """``|M| + sum(relu(|w| - |M|))``; it reaches every value beyond the margin, and the margin.

    Where more than one value lies beyond, the margin grows, else it shrinks.

    Args:
        weight: of any shape.
        margin: M, a scalar that is learned.
    """
    width = margin.abs()
    return width + (_wide_dtype(weight).abs() - width).relu().sum()


def soft_span(weight: Tensor, sharpness: Tensor) -> Tensor:
    """``s_max - s_min + exp(-a)``: from the soft minimum to the soft maximum.

    ``s_max = sum(w softmax(a w))`` and ``s_min = sum(w softmax(-a w))``; the last term makes a,
    which is learned, grow.

    Args:
        weight: of any shape.
        sharpness: a, a scalar in units of 1 over the weight's.
    """
    values = _wide_dtype(weight).flatten()
    high = (values * (sharpness * values).softmax(0)).sum()
    low = (values * (-sharpness * values).softmax(0)).sum()
    return high - low + (-sharpness).exp()


def _wide_dtype(weight: Tensor) -> Tensor:
    return weight.to(torch.promote_types(weight.dtype, torch.float32))
