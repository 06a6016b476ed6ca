"""An ordinary model of a frozen one: its weights decoded, and open to change."""

from __future__ import annotations

from torch import nn

from dkm_deploy._support.argument_checks import usage
from dkm_deploy.errors import DkmError
from dkm_deploy.model.palettized import palettes
from dkm_deploy.nn_utils.copies import independent_copy, unwrap
from dkm_deploy.nn_utils.weights import bake


@usage("dkm.dense(frozen)")
def dense(frozen: nn.Module) -> nn.Module:
    """Make an ordinary model with the decoded weights of a frozen one.

    Use it to merge adapters, for example. A frozen model decodes a weight on every
    access, so a value that is written into it is lost. Merge into a dense model, and palettize that
    again::

        adapted = PeftModel.from_pretrained(dkm.dense(frozen), adapter)
        frozen = dkm.palettize(adapted.merge_and_unload(), recipe)

    Args:
        frozen: from ``dkm.freeze``, ``dkm.palettize`` or ``dkm.load``; it does not change.

    Returns:
        A module in eval mode, with the classes and parameter names that the model had before it was
        palettized. Its weights are equal to those of the frozen model bit for bit, and are
        parameters of their own; weights that shared a palette share a parameter. Parametrizations
        that were registered above a palette are applied.

    Raises:
        DkmError: the model is prepared but not frozen, or has no palettes.

    Example:
        >>> frozen = dkm.palettize(nn.Linear(8, 4), 2)
        >>> dense = dkm.dense(frozen)
        >>> type(dense).__name__, torch.equal(dense.weight, frozen.weight)
        ('Linear', True)
    """
    if not palettes(frozen):
        raise DkmError("the model has no palettes: its weights are dense already")
    return bake(independent_copy(unwrap(frozen)), palettes=True).eval()
