"""Freeze: a plain module whose weights are decoded from hard palettes by the one op."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import parametrize

from dkm_deploy.errors import DkmError
from dkm_deploy.model.palettized import install
from dkm_deploy.nn_utils.copies import independent_copy, unwrap
from dkm_deploy.nn_utils.weights import bake, put
from dkm_deploy.training.prepare import prepared_weights, require_prepared


def freeze(model: nn.Module) -> nn.Module:
    """A new module with the hard palettes of a prepared model, in eval mode.

    The trained model is left as it was. The new one is an ordinary module: it runs, exports, and
    its ``state_dict`` holds indices and LUTs in place of the weights. What was stacked on a weight
    before :func:`prepare` is in its palette or, of a dense weight, in its values; a
    parametrization that was registered above a palette is kept there.

    Raises:
        DkmError: the model is not prepared, or a weight holds NaN or infinity.
    """
    require_prepared(model)
    frozen = independent_copy(unwrap(model))
    for layer in list(prepared_weights(frozen)):
        weight, above = layer.weight.detach(), layer.above
        if not torch.isfinite(weight).all():
            raise DkmError(f"{layer.name}: the weights hold NaN or infinity; training diverged")
        palette = layer.soft.palette(weight)
        for place in layer.places:
            put(place, nn.Parameter(weight))
        install(layer.places, palette, weight)
        for place, parametrizations in zip(layer.places, above, strict=True):
            for one in parametrizations:
                parametrize.register_parametrization(*place, one, unsafe=True)
    return bake(frozen).eval()


@torch.no_grad()
def soft_copy(model: nn.Module) -> nn.Module:
    """A plain copy of a prepared model whose weights are the soft ones, in eval mode.

    For measuring what the training loop sees beside what :func:`freeze` gives.
    """
    require_prepared(model)
    soft_model = independent_copy(unwrap(model)).eval()
    for layer in list(prepared_weights(soft_model)):
        above, soft = layer.above, nn.Parameter(layer.soft.soft(layer.weight.detach())[0])
        for place, parametrizations in zip(layer.places, above, strict=True):
            put(place, soft)
            for one in parametrizations:
                parametrize.register_parametrization(*place, one, unsafe=True)
    return bake(soft_model)
