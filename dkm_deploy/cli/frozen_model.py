"""The frozen model that a command line names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dkm_deploy.errors import DkmError
from dkm_deploy.model.checkpoint import is_palettized, load
from dkm_deploy.model.pt2_program import Pt2Program
from dkm_deploy.model.spec import build_model, with_weights
from dkm_deploy.post_training.palettize import palettize
from dkm_deploy.recipe import Recipe


def frozen_model(spec: str, weights: Path | None, recipe: Recipe | None) -> Pt2Program:
    """The frozen model: from a palettized checkpoint, or k-means with a recipe on a plain model.

    Args:
        spec: of the model.
        weights: a checkpoint; None for a ``.pt2`` file, whose own weights are palettized then.
        recipe: for what is plain.
    """
    built = build_model(spec)
    if weights is not None and is_palettized(weights):
        if recipe is not None:
            raise DkmError(f"{weights}: palettized already; --bits and --recipe need a plain one")
        return replace(built, model=load(weights, built.model))
    plain = with_weights(built.model, spec, weights)
    if recipe is None:
        raise DkmError(f"{weights or spec}: it is plain; give --bits or --recipe to palettize it")
    return replace(built, model=palettize(plain, recipe))
