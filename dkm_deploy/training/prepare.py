"""Prepare a model: its weights go through a soft palette on every access."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrize import ParametrizationList

from dkm_deploy._support.argument_checks import integer, usage
from dkm_deploy.assignment import Assignment
from dkm_deploy.conversion.recipe_check import check
from dkm_deploy.errors import DkmError
from dkm_deploy.nn_utils.copies import unwrap
from dkm_deploy.nn_utils.model_check import model_of
from dkm_deploy.nn_utils.weights import (
    Place,
    Weight,
    as_parametrization,
    chain_output,
    is_nested,
    originals,
    weights,
)
from dkm_deploy.palette_spec import PaletteSpec
from dkm_deploy.recipe import Recipe, RecipeLike
from dkm_deploy.training.distinct_values import FewValuesError
from dkm_deploy.training.fsdp import gather, overwrite, shard
from dkm_deploy.training.methods.protocol import AnyMethod, SnappingMethod
from dkm_deploy.training.methods.registry import training_method
from dkm_deploy.training.soft_palette import SoftPalette


@dataclass(frozen=True)
class PreparedWeight:
    """One prepared weight.

    Attributes:
        name: qualified name of the parameter, the first of its names if it is tied.
        parameters: what is trained: the weight, or what a norm or a mask computes it of.
        soft: its parametrization.
        places: every (module, attribute) that uses it.
    """

    name: str
    parameters: tuple[Tensor, ...]
    soft: SoftPalette
    places: tuple[Place, ...]

    @property
    def is_stacked(self) -> bool:
        """Whether the weight is computed of the parameters."""
        return self._chain[0] is not self.soft

    @property
    def weight(self) -> Tensor:
        """What the palette clusters: the parameter, or what is computed of it; then detached."""
        if not self.is_stacked:
            return self.parameters[0]
        return chain_output(self._chain, list(self._chain).index(self.soft))

    @property
    def above(self) -> list[list[nn.Module]]:
        """The parametrizations above the palette, of each place: a mask, a scale, an adapter."""
        chains = (_chain(place) for place in self.places)
        return [list(chain)[list(chain).index(self.soft) + 1 :] for chain in chains]

    @property
    def _chain(self) -> ParametrizationList:
        return _chain(self.places[0])


def _chain(place: Place) -> ParametrizationList:
    module, attribute = place
    return cast(ParametrizationList, cast(nn.ModuleDict, module.parametrizations)[attribute])


@usage('dkm.prepare(model, 4, method="dkm")')
def prepare(
    model: nn.Module,
    recipe: RecipeLike,
    method: str | AnyMethod = "dkm",
    targets: Sequence[str] = (),
) -> nn.Module:
    """Prepare a model, in place, for training with palettes.

    Parameters stay the same objects, so an optimizer made before remains valid. Only "ewgs" adds
    parameters; for it, make the optimizer afterwards. A norm or a pruning mask stays below the
    palette: its result is clustered, and its parameters train. If it is a hook, it becomes the
    parametrization of the same kind.

    Args:
        model: any module; its weights may be on any device.
        recipe: which weight gets which palette. A spec or a number of bits applies to all weights.
        method: "dkm", "ste", "ewgs", "gwk", or a record such as ``dkm.DKM(temperature=0.02)``.
        targets: targets that the model will be converted to, such as "onnx" or "coreml:iOS17". A
            palette that one of them cannot hold is refused now, not after training.

    Returns:
        The same model.

    Raises:
        DkmError: the recipe does not fit the model or a target, the model is prepared already, or a
            weight holds NaN or infinity. The model is then unchanged.

    Example:
        >>> model = dkm.prepare(nn.Linear(8, 4), 2)
        >>> dkm.status(model)["weight"].bits
        2
    """
    model, recipe, chosen = model_of(model), Recipe.of(recipe), training_method(method)
    _check_trainable(model)
    assignment, found = check(model, recipe, targets), weights(unwrap(model))
    softs = {
        name: _soft(name, found[name], assignment, chosen, recipe) for name in assignment.specs
    }
    for name, soft in softs.items():
        soft.train(model.training)
        for place in found[name].places:
            as_parametrization(place)
            parametrize.register_parametrization(*place, soft, unsafe=True)
    return model


def _soft(
    name: str, weight: Weight, assignment: Assignment, method: AnyMethod, recipe: Recipe
) -> SoftPalette:
    if any(source.is_inference() for source in weight.sources):
        raise DkmError(
            f"{name}: it was made in inference mode and cannot be trained; prepare a copy of the "
            "model, copy.deepcopy(model)"
        )
    if weight.is_stacked and isinstance(method, SnappingMethod):
        raise DkmError(
            f"{name}: a norm, a mask or a parametrization computes it, so that gwk cannot move it "
            "onto centroids; remove it first or use another method"
        )
    if any(map(is_nested, weight.places)):
        raise DkmError(
            f"{name}: a mask lies on a part of its norm; make it permanent before training, "
            "torch.nn.utils.prune.remove"
        )
    spec, note = assignment.specs[name], assignment.adjusted.get(name, "")
    try:
        try:
            return SoftPalette(weight.value, spec, method, recipe.schedule, note)
        except FewValuesError as error:
            if name not in assignment.defaulted:
                raise
            fewer, told = _for_few_values(spec, error.bits)
            note = f"{note}; {told}" if note else told
            return SoftPalette(weight.value, fewer, method, recipe.schedule, note)
    except DkmError as error:
        raise DkmError(f"{name}: {error}") from error


def _for_few_values(spec: PaletteSpec, bits: int) -> tuple[PaletteSpec, str]:
    """The nearest palette for a weight with values for only so many bits, and what it has."""
    if bits == 0 and spec.group_size is not None:
        return replace(spec, group_size=None), "a group has but one value; it has one LUT"
    told = f"too few distinct values for {spec.bits} bits; it has {max(bits, 1)}"
    return replace(spec, bits=max(bits, 1)), told


def _check_trainable(model: nn.Module) -> None:
    """Raise DkmError for a model that PyTorch cannot train."""
    if isinstance(model, fx.GraphModule) and "train" in vars(model):
        raise DkmError(
            "model is a program of torch.export, fixed to one mode; prepare the model that it was "
            "exported from"
        )


def prepared_weights(model: nn.Module) -> Iterator[PreparedWeight]:
    """Every prepared weight of a model, tied ones once."""
    found: dict[int, PreparedWeight] = {}
    for prefix, module in unwrap(model).named_modules():
        if not parametrize.is_parametrized(module):
            continue
        for attribute, chain in cast(nn.ModuleDict, module.parametrizations).items():
            chain = cast(ParametrizationList, chain)
            soft = next((one for one in chain if isinstance(one, SoftPalette)), None)
            if soft is not None:
                name = f"{prefix}.{attribute}" if prefix else attribute
                known = found.get(id(soft)) or PreparedWeight(name, originals(chain), soft, ())
                found[id(soft)] = replace(known, places=(*known.places, (module, attribute)))
    yield from found.values()


@usage("dkm.step(model)")
def step(model: nn.Module, steps: int = 1) -> None:
    """Count training steps; call it after each ``optimizer.step()`` and before ``zero_grad()``.

    It moves the temperature along the schedule of the recipe, clusters the weights again where the
    method does that at intervals, and stops a run that has diverged.

    Args:
        model: a model from ``dkm.prepare``.
        steps: number of steps to count.

    Raises:
        DkmError: the model is not prepared, a weight is NaN or infinite (the message names the
            weight and the step), or the method needs gradients and there are none.

    Example:
        >>> model = dkm.prepare(nn.Linear(8, 4), 2)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        >>> model(torch.ones(1, 8)).square().mean().backward()
        >>> optimizer.step()
        >>> dkm.step(model)
        >>> optimizer.zero_grad()
    """
    layers = require_prepared(model)
    steps = integer("steps", steps, 1)
    _check_gradients(layers)
    for layer in layers:
        weight = layer.weight
        trained = [weight, *layer.soft.parameters()]
        if not all(torch.isfinite(shard(one)).all() for one in trained):
            step = int(layer.soft.step) + steps
            raise DkmError(
                f"{layer.name}: the weights hold NaN or infinity after step {step}; go back to a "
                "checkpoint and lower the learning rate or clip gradients"
            )
        moved = layer.soft.advance(gather(weight).detach(), steps, _gradient(layer))
        if moved is not None:
            overwrite(weight, moved)


def _check_gradients(layers: Sequence[PreparedWeight]) -> None:
    """Refuse a loop that clears gradients before a method that snaps has seen the first."""
    snapping = [layer for layer in layers if isinstance(layer.soft.method, SnappingMethod)]
    if not snapping or int(snapping[0].soft.step):
        return
    gradients = (layer.weight.grad for layer in snapping)
    if not any(gradient is not None and shard(gradient).any() for gradient in gradients):
        raise DkmError(
            f"{snapping[0].name}: {snapping[0].soft.method} needs gradients, and no weight has "
            "one; call dkm.step after optimizer.step() and before zero_grad()"
        )


def _gradient(layer: PreparedWeight) -> Tensor | None:
    """The whole gradient for a method that asks for it; FSDP2 must gather it."""
    if not isinstance(layer.soft.method, SnappingMethod) or layer.weight.grad is None:
        return None
    return gather(layer.weight.grad)


def require_prepared(model: nn.Module) -> list[PreparedWeight]:
    """The prepared weights. Raises DkmError if there are none."""
    layers = list(prepared_weights(model_of(model)))
    if not layers:
        raise DkmError("the model has no prepared weights; call dkm.prepare(model, recipe) first")
    return layers
