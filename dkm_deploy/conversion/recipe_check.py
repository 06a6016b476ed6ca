"""Check a recipe against a model and the targets, before anything is clustered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrize import ParametrizationList

from dkm_deploy._support.argument_checks import names_of
from dkm_deploy.assignment import Assignment, assign, candidates_of
from dkm_deploy.conversion.registry import target_named
from dkm_deploy.conversion.target import LayerTarget
from dkm_deploy.errors import DkmError
from dkm_deploy.nn_utils.copies import unwrap
from dkm_deploy.nn_utils.model_check import model_of
from dkm_deploy.nn_utils.recurrent import gates
from dkm_deploy.nn_utils.weights import OwnParametrization
from dkm_deploy.recipe import Recipe, RecipeLike


def check(model: nn.Module, recipe: RecipeLike, targets: Sequence[str] = ()) -> Assignment:
    """The palette of each weight that the recipe clusters, by qualified name, and the rest.

    Raises:
        DkmError: the weights cannot be clustered as the recipe says.
    """
    model, recipe = unwrap(model_of(model)), Recipe.of(recipe)
    targets = names_of(targets, "targets")
    palettized = _palettized_name(model)
    if palettized is not None:
        raise DkmError(
            f"{palettized} has a palette already (prepared before, or frozen); start from the "
            "plain model, or from dkm.dense of the frozen one"
        )
    for target in targets:
        _check_layers(model, target)
    candidates = candidates_of(model)
    parameters = {candidate.name: candidate.value.detach() for candidate in candidates}
    assignment = assign(candidates, recipe.rules, recipe.default)
    for name, spec in assignment.specs.items():
        if not torch.isfinite(parameters[name]).all():
            raise DkmError(f"{name}: the weights hold NaN or infinity; fix the model first")
        for target in targets:
            shape = tuple(parameters[name].shape)
            refusal = target_named(target).refuse(spec, shape, gates(model, name))
            if refusal:
                raise DkmError(f"{name}: target {target} cannot hold it: {refusal}")
    return assignment


def _palettized_name(model: nn.Module) -> str | None:
    """The name of a weight that is prepared or frozen, if there is one."""
    for prefix, module in model.named_modules():
        if parametrize.is_parametrized(module):
            for attribute, chain in cast(nn.ModuleDict, module.parametrizations).items():
                parametrizations = list(cast(ParametrizationList, chain))
                if any(isinstance(one, OwnParametrization) for one in parametrizations):
                    return f"{prefix}.{attribute}".lstrip(".")
    return None


def _check_layers(model: nn.Module, name: str) -> None:
    target = target_named(name)
    if isinstance(target, LayerTarget):
        for layer, module in model.named_modules():
            refusal = target.refuse_layer(module)
            if refusal:
                raise DkmError(f"{layer or 'the model'}: target {name} cannot hold it: {refusal}")
