"""An ordinary model of a frozen one: its weights decoded, and open to change."""

from __future__ import annotations

from torch import nn

from dkm_deploy.errors import DkmError
from dkm_deploy.model.palettized import palettes
from dkm_deploy.nn_utils.copies import independent_copy, unwrap
from dkm_deploy.nn_utils.weights import bake


def dense(frozen: nn.Module) -> nn.Module:
    """An ordinary model with the decoded weights of a frozen one, such as to merge adapters into.

    A palette gives its weight anew on every access, so that what is written into the weight of a
    frozen model is lost. Merge into a dense model, and palettize that again::

        adapted = PeftModel.from_pretrained(dkm.dense(frozen), adapter)
        frozen = dkm.palettize(adapted.merge_and_unload(), recipe)

    Args:
        frozen: from ``dkm.freeze``, ``dkm.palettize`` or ``dkm.load``; it is left as it was.

    Returns:
        A module of the classes and with the parameter names that the model had before it was
        palettized, in eval mode. Weights are those of the frozen model, bit for bit, in
        parameters of their own; what shared a palette shares a parameter. Parametrizations that
        were registered above a palette are applied.

    Raises:
        DkmError: the model is prepared but not frozen, or has no palettes.
    """
    if not palettes(frozen):
        raise DkmError("the model has no palettes: its weights are dense already")
    return bake(independent_copy(unwrap(frozen)), palettes=True).eval()
