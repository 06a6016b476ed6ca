"""A loss term that keeps weights in a narrow range, for training before palettes are put on."""

from __future__ import annotations

from math import log
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from dkm_deploy._support.argument_checks import usage
from dkm_deploy.clustering.range_penalties import largest_magnitude, overshoot_penalty, soft_span
from dkm_deploy.conversion.recipe_check import check
from dkm_deploy.errors import DkmError
from dkm_deploy.nn_utils.copies import unwrap
from dkm_deploy.nn_utils.model_check import model_of
from dkm_deploy.nn_utils.weights import used_weight, weights
from dkm_deploy.recipe import RecipeLike

RangeKind = Literal["l_inf", "margin", "soft_min_max"]


class RangeLoss(nn.Module):
    """Range regularization (R2) of the weights that a recipe palettizes (arXiv 2303.08253).

    Use it in full-precision training before ``dkm.prepare`` with 1 or 2 bits: outliers widen the
    range that few centroids must cover. The authors (Kundu et al. 2023) add it to the loss with a
    factor of about 0.01. "margin" and "soft_min_max" learn one number per weight, so the optimizer
    must also hold the parameters of the ``RangeLoss``. Formulas:
    :mod:`dkm_deploy.clustering.range_penalties`. The start values of the learned numbers are our
    choice: 3 standard deviations for a margin, and ``log(n) / max |w|`` for a sharpness, where the
    softmax begins to single out the largest of n values.

    Args:
        model: a plain model, not prepared; its parameters do not become parameters of the loss.
        recipe: the weights that it palettizes are regularized, whatever their bits.
        kind: "l_inf", "margin" or "soft_min_max".

    Raises:
        DkmError: the recipe does not fit the model or palettizes no weight, the model is prepared
            already, or ``kind`` is unknown.

    Example:
        >>> model = nn.Linear(8, 4)
        >>> penalty = dkm.RangeLoss(model, 2, kind="margin")
        >>> optimizer = torch.optim.SGD([*model.parameters(), *penalty.parameters()], lr=0.1)
        >>> loss = model(torch.ones(1, 8)).square().mean() + 0.01 * penalty()
        >>> loss.backward()
    """

    @usage("dkm.RangeLoss(model, 4)")
    def __init__(self, model: nn.Module, recipe: RecipeLike, kind: RangeKind = "l_inf") -> None:
        super().__init__()
        if kind not in get_args(RangeKind):
            raise DkmError(f"kind is {kind!r}; it must be one of {', '.join(get_args(RangeKind))}")
        found = weights(unwrap(model_of(model)))
        # By place: FSDP2 puts other parameters there. In a tuple no module becomes part of this.
        self._places = tuple(found[name].places[0] for name in check(model, recipe).specs)
        if not self._places:
            raise DkmError(
                "the recipe palettizes no weight of the model; there is nothing to regularize"
            )
        self.kind = kind
        self.learned = nn.ParameterList(
            [] if kind == "l_inf" else [_start(weight, kind) for weight in self._weights()]
        )

    def forward(self) -> Tensor:
        """Sum the penalties of all weights.

        Returns:
            A scalar tensor, in the unit of the weights.

        Example:
            >>> layer = nn.Linear(8, 4)
            >>> dkm.RangeLoss(layer, 2)().item() == layer.weight.abs().max().item()
            True
        """
        if self.kind == "l_inf":
            return torch.stack([largest_magnitude(weight) for weight in self._weights()]).sum()
        penalty = overshoot_penalty if self.kind == "margin" else soft_span
        pairs = zip(self._weights(), self.learned, strict=True)
        return torch.stack([penalty(weight, number) for weight, number in pairs]).sum()

    def _weights(self) -> list[Tensor]:
        return [used_weight(place) for place in self._places]


@torch.no_grad()
def _start(weight: Tensor, kind: RangeKind) -> nn.Parameter:
    """The number that is learned of a weight, where it starts."""
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    if kind == "margin":
        return nn.Parameter(3 * wide.std(correction=0))
    return nn.Parameter(log(wide.numel()) / wide.abs().amax().clamp(min=1e-12))
