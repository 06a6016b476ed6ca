"""LUT entries by least squares: indices stay, and outputs come as near as they can."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dkm_deploy.clustering.krylov import capped_resolvent
from dkm_deploy.post_training.output_correction.channel_statistics import centre

Forward = Callable[[Tensor], list[Tensor]]
"""From LUT entries to a layer's outputs on all samples; affine."""

RIDGE = 1e-2  # of the relative squared gap: what a relative squared change of the weight costs
_STEPS = 32
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class LutFit:
    """Least squares for one LUT.

    Attributes:
        forward: see :data:`Forward`. What it gives for zeros is zeros, or with ``free_dim`` one
            value a channel.
        targets: the outputs to come near to.
        weights: of their rows, see
            :func:`dkm_deploy.post_training.output_correction.channel_statistics.row_weights`.
        free_dim: the dimension of channels, counted from the last, if something behind the layer
            takes up a shift of each, so that only what varies counts; None without.
        mass: of the LUT's shape: the weights of each entry, what its square adds to theirs.
    """

    forward: Forward
    targets: Sequence[Tensor]
    weights: Sequence[Tensor]
    free_dim: int | None
    mass: Tensor

    def __call__(self, lut: Tensor) -> Tensor:
        """The best entries, of the LUT's shape and dtype; the old ones where they are no worse.

        Minimised is ``|forward(x) - targets|**2 / |forward(lut)|**2`` plus a hundredth of the
        relative squared change of the weight, so that directions which the samples hardly show
        stay as they are. Lanczos with products of the curvature, one pass over the samples each:
        exact for up to 32 entries, near for more.
        """
        root = self.mass.double().clamp(min=torch.finfo(torch.float32).tiny).sqrt()
        energy = self._gap_and_slope(lut, None)[0]
        unit = energy / max(float((root * lut).square().sum()), torch.finfo(torch.float32).tiny)
        gap, slope = self._gap_and_slope(lut, self.targets)
        if not unit > 0 or not torch.isfinite(slope).all():
            return lut

        def _product(vector: Tensor) -> Tensor:
            step = (vector.reshape(lut.shape) / root).to(lut.dtype)
            curved = self._gap_and_slope(step, None)[1] / root / unit
            # What float16 overflows to is not taken in the end, for it is no better.
            curved = curved.nan_to_num()
            return vector - curved.reshape(1, -1) - RIDGE * vector

        right = -(slope / root / unit).reshape(1, -1)
        step = capped_resolvent(
            _product, right, floor=RIDGE, steps=_STEPS, tolerance=_TOLERANCE
        ).reshape(lut.shape)
        found = (lut + step / root).to(lut.dtype)
        return found if self._gap_and_slope(found, self.targets)[0] < gap else lut

    def _gap_and_slope(self, lut: Tensor, targets: Sequence[Tensor] | None) -> tuple[float, Tensor]:
        """The squared gap to ``targets`` (to zeros), and half its gradient, float64."""
        with torch.enable_grad():
            leaf = lut.detach().clone().requires_grad_()
            gaps = self.forward(leaf)
            if targets is not None:
                gaps = [gap - target for gap, target in zip(gaps, targets, strict=True)]
            if self.free_dim is not None:
                gaps = centre(gaps, self.weights, self.free_dim)
            squares = [
                (weight * gap.float().square()).sum()
                for gap, weight in zip(gaps, self.weights, strict=True)
            ]
            total = torch.stack(squares).sum()
        (slope,) = torch.autograd.grad(total, leaf)
        return float(total.detach()), slope.double() / 2
