"""Move the LUTs of a frozen model to an 8-bit grid, for kernels that compute with 8-bit weights."""

from __future__ import annotations

import copy

import torch
from torch import nn

from dkm_deploy._support.argument_checks import usage
from dkm_deploy.clustering.quantizers.int8_lut import round_lut
from dkm_deploy.errors import DkmError
from dkm_deploy.model.palettized import PaletteWeight, palettes


@usage("dkm.quantize_luts(frozen)")
@torch.no_grad()
def quantize_luts(frozen: nn.Module) -> nn.Module:
    """Copy a frozen model with the LUT entries quantized to 8 bits: a step times -127 to 127.

    The step is the largest magnitude in the LUT divided by 127, so an entry changes by at most
    0.4 % of that magnitude. The indices stay the same. ``dkm.convert(.., "m.onnx", decode="int8")``
    and ``dkm.convert(.., "m.mlpackage", lut_dtype="int8")`` need such a model.

    Args:
        frozen: from ``dkm.palettize``, ``dkm.freeze`` or ``dkm.load``; it does not change.

    Returns:
        A frozen module in eval mode.

    Raises:
        DkmError: the model has no palettes, or is not frozen.

    Example:
        >>> frozen = dkm.quantize_luts(dkm.palettize(nn.Linear(8, 4), 2))
        >>> lut = dkm.palettes(frozen)["weight"].lut
        >>> multiples = lut / np.abs(lut).max() * 127
        >>> bool(np.allclose(multiples, multiples.round(), atol=1e-3))
        True
    """
    if not palettes(frozen):
        raise DkmError("the model has no palettes; dkm.freeze or dkm.palettize it first")
    copied = copy.deepcopy(frozen)
    for module in copied.modules():
        if isinstance(module, PaletteWeight):
            lut = module.lut.float().cpu().numpy()
            module.lut.copy_(torch.from_numpy(round_lut(lut)))
    return copied
