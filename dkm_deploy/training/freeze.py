"""Freeze: a plain module whose weights are decoded from hard palettes by the one op."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import parametrize

from dkm_deploy._support.argument_checks import usage
from dkm_deploy.errors import DkmError
from dkm_deploy.model.palettized import install
from dkm_deploy.nn_utils.copies import independent_copy, unwrap
from dkm_deploy.nn_utils.weights import bake, put
from dkm_deploy.training.prepare import prepared_weights, require_prepared


@usage("dkm.freeze(model)")
def freeze(model: nn.Module) -> nn.Module:
    """Make a frozen module with the hard palettes of a prepared model.

    The trained model does not change. The new one is an ordinary module: it runs, exports, and its
    ``state_dict`` holds indices and LUTs in place of the weights. A parametrization that was on a
    weight before :func:`dkm_deploy.prepare` is part of the palette or, for a dense weight, of its
    values. A parametrization that was registered above a palette is kept there.

    Args:
        model: a model from ``dkm.prepare``.

    Returns:
        A frozen module in eval mode.

    Raises:
        DkmError: the model is not prepared, or a weight holds NaN or infinity.

    Example:
        >>> model = dkm.prepare(nn.Linear(8, 4), 2)
        >>> frozen = dkm.freeze(model)
        >>> len(frozen.weight.unique())
        4
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


@usage("dkm.soft_copy(model)")
@torch.no_grad()
def soft_copy(model: nn.Module) -> nn.Module:
    """Copy a prepared model as a plain model with its soft weights, in eval mode.

    With it you can compare what the training loop computes with the result of :func:`freeze`.

    Args:
        model: a model from ``dkm.prepare``; it does not change.

    Returns:
        A plain module in eval mode.

    Raises:
        DkmError: the model is not prepared.

    Example:
        >>> model = dkm.prepare(nn.Linear(8, 4), 2)
        >>> soft, hard = dkm.soft_copy(model).weight, dkm.freeze(model).weight
        >>> len(soft.unique()) > len(hard.unique())
        True
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
