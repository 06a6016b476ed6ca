"""Prepare a model: its weights go through a soft palette on every access."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dkm_deploy.errors import DkmError
from dkm_deploy.given import integer, model_of, names_of
from dkm_deploy.recipe import PaletteSpec, Recipe
from dkm_deploy.targets import LayerTarget, target_named
from dkm_deploy.training.method import AnyMethod, Snapping
from dkm_deploy.training.methods import method_named
from dkm_deploy.training.sharded import overwrite, shard, whole
from dkm_deploy.training.soft import SoftPalette

GATES = "_dkm_gates"
"""Attribute of a layer that is no ``nn.LSTM`` or ``nn.GRU``, but computes what these do."""

Place = tuple[nn.Module, str]
"""A module and the attribute by which it uses a parameter."""


@dataclass(frozen=True)
class Attached:
    """One prepared weight.

    Attributes:
        name: qualified name of the parameter, the first of its names if it is tied.
        weight: the trained parameter.
        soft: its parametrization.
        places: every (module, attribute) that uses it.
    """

    name: str
    weight: nn.Parameter
    soft: SoftPalette
    places: tuple[Place, ...]


def prepare(
    model: nn.Module,
    recipe: Recipe | PaletteSpec | int,
    method: str | AnyMethod = "dkm",
    targets: Sequence[str] = (),
) -> nn.Module:
    """Make a model train with palettes. Works in place and returns the model.

    Parameters keep their identity, so an optimiser made before goes on working. Only "ewgs" adds
    some of its own, which the optimiser must hold: make it after.

    Args:
        model: any module; its weights may be on any device.
        recipe: which weight gets which palette; a spec or a number of bits is for all.
        method: "dkm", "ste", "ewgs", "gwk", or a record such as ``dkm.DKM(temperature=0.02)``.
        targets: names of the targets the model will be converted to, such as "onnx" or
            "coreml:iOS17"; what one of them cannot hold is refused now, not after training.

    Raises:
        DkmError: the recipe does not fit the model or a target, the model is prepared already, or
            a weight holds NaN or infinity. The model is then unchanged.
    """
    model, recipe, chosen = model_of(model), Recipe.of(recipe), method_named(method)

    def _soft(name: str, weight: nn.Parameter, spec: PaletteSpec) -> SoftPalette:
        try:
            return SoftPalette(weight, spec, chosen, recipe.schedule)
        except DkmError as error:
            raise DkmError(f"{name}: {error}") from error

    specs = check(model, recipe, targets)
    parameters, used_in = dict(model.named_parameters()), places(model)
    softs = {name: _soft(name, parameters[name], spec) for name, spec in specs.items()}
    for name, soft in softs.items():
        soft.train(model.training)
        for module, attribute in used_in[name]:
            parametrize.register_parametrization(module, attribute, soft, unsafe=True)
    return model


def check(
    model: nn.Module, recipe: Recipe | PaletteSpec | int, targets: Sequence[str] = ()
) -> Mapping[str, PaletteSpec]:
    """The palette of each weight that the recipe clusters, by qualified name.

    Raises:
        DkmError: the weights cannot be clustered as the recipe says.
    """
    model, recipe = model_of(model), Recipe.of(recipe)
    targets = names_of(targets, "targets")
    parametrized = [n for n, m in model.named_modules() if parametrize.is_parametrized(m)]
    if parametrized:
        raise DkmError(
            f"{parametrized[0] or 'the model'} has a parametrization already (prepared before, "
            "frozen, or weight_norm); start from the plain model"
        )
    for target in targets:
        _check_layers(model, target)
    specs = recipe.assign(model).specs
    parameters = dict(model.named_parameters())
    for name, spec in specs.items():
        if not torch.isfinite(parameters[name]).all():
            raise DkmError(f"{name}: the weights hold NaN or infinity; mend the model first")
        for target in targets:
            shape = tuple(parameters[name].shape)
            refusal = target_named(target).refuse(spec, shape, gates(model, name))
            if refusal:
                raise DkmError(f"{name}: target {target} cannot hold it: {refusal}")
    return specs


def _check_layers(model: nn.Module, name: str) -> None:
    target = target_named(name)
    if isinstance(target, LayerTarget):
        for layer, module in model.named_modules():
            refusal = target.refuse_layer(module)
            if refusal:
                raise DkmError(f"{layer or 'the model'}: target {name} cannot hold it: {refusal}")


def gates(model: nn.Module, weight: str) -> int:
    """Equal blocks along dimension 0 of a weight: the gates of a recurrent layer."""
    layer = model.get_submodule(weight.rpartition(".")[0])
    if isinstance(layer, (nn.LSTM, nn.GRU)):
        return 4 if isinstance(layer, nn.LSTM) else 3
    known: int = getattr(layer, GATES, 1)
    return known


def attached(model: nn.Module) -> Iterator[Attached]:
    """Every prepared weight of a model, tied ones once."""
    found: dict[int, tuple[str, nn.Parameter, SoftPalette, list[Place]]] = {}
    for prefix, module in model.named_modules():
        if not parametrize.is_parametrized(module):
            continue
        for attribute, chain in module.parametrizations.items():
            if isinstance(chain[0], SoftPalette):
                name = f"{prefix}.{attribute}" if prefix else attribute
                entry = found.setdefault(id(chain[0]), (name, chain.original, chain[0], []))
                entry[3].append((module, attribute))
    for name, weight, soft, used_in in found.values():
        yield Attached(name, weight, soft, tuple(used_in))


def advance(model: nn.Module, steps: int = 1) -> None:
    """Count training steps; call it once after each step of the optimiser, before ``zero_grad``.

    Moves the temperature along the recipe's schedule, snaps the weights where the method does, and
    stops a run that has diverged.

    Raises:
        DkmError: the model is not prepared, a weight has become NaN or infinite (which, and at
            which step), or the method needs gradients and none is there.
    """
    layers = require_attached(model)
    steps = integer("steps", steps, 1)
    _check_gradients(layers)
    for layer in layers:
        trained = [layer.weight, *layer.soft.parameters()]
        if not all(torch.isfinite(shard(one)).all() for one in trained):
            step = int(layer.soft.step) + steps
            raise DkmError(
                f"{layer.name}: the weights hold NaN or infinity after step {step}; go back to a "
                "checkpoint and lower the learning rate or clip gradients"
            )
        moved = layer.soft.advance(whole(layer.weight).detach(), steps, _gradient(layer))
        if moved is not None:
            overwrite(layer.weight, moved)


def _check_gradients(layers: Sequence[Attached]) -> None:
    """Refuse a loop that clears gradients before a method that snaps has seen the first."""
    snapping = [layer for layer in layers if isinstance(layer.soft.method, Snapping)]
    if not snapping or int(snapping[0].soft.step):
        return
    gradients = (layer.weight.grad for layer in snapping)
    if not any(gradient is not None and shard(gradient).any() for gradient in gradients):
        raise DkmError(
            f"{snapping[0].name}: {snapping[0].soft.method} needs gradients, and no weight has "
            "one; call dkm.advance after optimizer.step() and before zero_grad()"
        )


def _gradient(layer: Attached) -> Tensor | None:
    """The whole gradient for a method that asks for it; FSDP2 must gather it."""
    if layer.weight.grad is None or not isinstance(layer.soft.method, Snapping):
        return None
    return whole(layer.weight.grad)


def require_attached(model: nn.Module) -> list[Attached]:
    """The prepared weights. Raises DkmError if there are none."""
    layers = list(attached(model_of(model)))
    if not layers:
        raise DkmError("the model has no prepared weights; call dkm.prepare(model, recipe) first")
    return layers


def places(model: nn.Module) -> dict[str, list[Place]]:
    """Every (module, attribute) that uses each parameter, by the parameter's first name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found: dict[str, list[Place]] = {name: [] for name in names.values()}
    for module in model.modules():
        for attribute, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            found[names[id(parameter)]].append((module, attribute))
    return found
