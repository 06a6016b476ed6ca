"""Move the LUTs of a frozen model to an 8-bit grid, for kernels that compute with 8-bit weights."""

from __future__ import annotations

import copy

import torch
from torch import nn

from dkm_deploy.clustering.quantizers.int8_lut import round_lut
from dkm_deploy.errors import DkmError
from dkm_deploy.model.palettized import PaletteWeight, palettes


@torch.no_grad()
def quantize_luts(frozen: nn.Module) -> nn.Module:
    """A copy of a frozen model whose LUT entries are whole multiples, -127 to 127, of a step.

    The step is the LUT's largest magnitude over 127, so an entry moves by at most 0.4 % of that.
    Indices stay as they are. ``dkm.convert(.., "m.onnx", decode="int8")`` and
    ``dkm.convert(.., "m.mlpackage", lut_dtype="int8")`` need such a model.

    Raises:
        DkmError: the model has no palettes, or is not frozen.
    """
    if not palettes(frozen):
        raise DkmError("the model has no palettes; dkm.freeze or dkm.palettize it first")
    copied = copy.deepcopy(frozen)
    for module in copied.modules():
        if isinstance(module, PaletteWeight):
            lut = module.lut.float().cpu().numpy()
            module.lut.copy_(torch.from_numpy(round_lut(lut)))
    return copied
