"""The palettes that a file of a model must hold."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from dkm_deploy.conversion.export import export
from dkm_deploy.errors import DkmError
from dkm_deploy.model.inputs import Inputs
from dkm_deploy.model.palettized import palettes
from dkm_deploy.model.pt2_program import fixed_batch
from dkm_deploy.model.samples import rows
from dkm_deploy.model.steps import Steps
from dkm_deploy.palette import Palette


def needed_palettes(model: nn.Module, inputs: Inputs | Steps) -> Mapping[str, Palette]:
    """The palettes that outputs of a frozen model depend on.

    All of them, if the model cannot be exported on the first of the inputs.
    """
    try:
        return export(model, rows(inputs, 0, fixed_batch(model) or 1)).palettes
    except DkmError:
        return palettes(model)
