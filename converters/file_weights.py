"""What all that palettize a file share: a recipe for its tensors, and why some stay dense."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from dkm_deploy.assignment import Assignment
from dkm_deploy.recipe import Recipe

_SHOWN = 3


def assign_to_shapes(recipe: Recipe, shapes: Mapping[str, Sequence[int]]) -> Assignment:
    """What a recipe says of weights by their shapes: the spec of each, or the reason to stay dense.

    Raises:
        DkmError: the recipe does not fit the weights.
    """
    if not shapes:
        return Assignment({}, {}, {}, ())
    return recipe.assign({n: torch.empty(*shape, device="meta") for n, shape in shapes.items()})


def first_reasons(dense: Mapping[str, str]) -> str:
    """The first reasons why weights stay dense."""
    if not dense:
        return "it has no tensor of rank 2 or more"
    return "; ".join(f"{name}: {reason}" for name, reason in list(dense.items())[:_SHOWN])
