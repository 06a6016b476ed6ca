"""Prepare a model: its weights go through a soft palette on every access."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dkm_deploy.clustering.kmeans import assign, kmeans
from dkm_deploy.clustering.layout import from_vectors, to_palette, to_vectors
from dkm_deploy.errors import DkmError
from dkm_deploy.palette import Palette
from dkm_deploy.recipe import PaletteSpec, Recipe, Schedule
from dkm_deploy.targets import target_named
from dkm_deploy.training.methods import Method, method_named

Place = tuple[nn.Module, str]
"""A module and the attribute by which it uses a parameter."""


class SoftPalette(nn.Module):
    """Parametrization of one weight.

    Training mode gives the soft weight and moves the centroids; eval mode gives the hard weight
    that :func:`dkm_deploy.freeze` will write.

    Buffers: ``centroids`` ``(groups, 2**bits, cluster_dim)`` and ``step`` ``()``, so that a
    ``state_dict`` holds all that a resumed run needs.
    """

    centroids: Tensor
    step: Tensor

    def __init__(
        self, weight: Tensor, spec: PaletteSpec, method: Method, schedule: Schedule | None
    ) -> None:
        super().__init__()
        self.spec, self.method, self.schedule = spec, method, schedule
        self.temperature = method.temperature_for(spec)
        vectors = to_vectors(weight.detach(), spec)
        self.register_buffer("centroids", kmeans(vectors, 1 << spec.bits))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64, device=weight.device))

    def tau(self, vectors: Tensor) -> Tensor:
        """Temperature of each group in squared weight units, ``(groups,)``."""
        variance = vectors.detach().var(dim=(1, 2), correction=0)
        if self.schedule is None:
            return self.temperature * variance
        progress = (self.step / self.schedule.steps).clamp(max=1)
        return self.temperature * variance * self.schedule.end**progress

    def soft(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The soft weight, shaped as ``weight``, and the centroids that made it."""
        vectors = to_vectors(weight, self.spec)
        softened, centroids = self.method.soften(vectors, self.centroids, self.tau(vectors))
        return from_vectors(softened, weight.shape, self.spec), centroids

    def palette(self, weight: Tensor) -> Palette:
        """The hard palette of ``weight`` with today's centroids."""
        nearest = assign(to_vectors(weight, self.spec), self.centroids)
        return to_palette(nearest, self.centroids, weight.shape, self.spec)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight as the model's forward pass uses it."""
        if not self.training:
            vectors = to_vectors(weight, self.spec)
            nearest = assign(vectors, self.centroids).unsqueeze(-1).expand_as(vectors)
            return from_vectors(self.centroids.gather(1, nearest), weight.shape, self.spec)
        soft, centroids = self.soft(weight)
        with torch.no_grad():
            self.centroids.copy_(centroids)
        return soft


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
    recipe: Recipe,
    method: str | Method = "dkm",
    targets: Sequence[str] = (),
) -> nn.Module:
    """Make a model train with palettes. Works in place and returns the model.

    Parameters keep their identity, so an optimiser made before goes on working.

    Args:
        model: any module; its weights may be on any device.
        recipe: which weight gets which palette.
        method: "dkm", or a record such as ``dkm.DKM(temperature=0.02)``.
        targets: names of the targets the model will be converted to; what one of them cannot
            hold is refused now, not after training.

    Raises:
        DkmError: the recipe does not fit the model or a target, the model is prepared already, or
            a weight holds NaN or infinity. The model is then unchanged.
    """
    chosen = method_named(method)
    specs = check(model, recipe, targets)
    parameters, used_in = dict(model.named_parameters()), places(model)
    softs = {
        name: SoftPalette(parameters[name], spec, chosen, recipe.schedule)
        for name, spec in specs.items()
    }
    for name, soft in softs.items():
        soft.train(model.training)
        for module, attribute in used_in[name]:
            parametrize.register_parametrization(module, attribute, soft, unsafe=True)
    return model


def check(
    model: nn.Module, recipe: Recipe, targets: Sequence[str] = ()
) -> Mapping[str, PaletteSpec]:
    """The palette of each weight that the recipe clusters, by qualified name.

    Raises:
        DkmError: the weights cannot be clustered as the recipe says.
    """
    parametrized = [n for n, m in model.named_modules() if parametrize.is_parametrized(m)]
    if parametrized:
        raise DkmError(
            f"{parametrized[0] or 'the model'} has a parametrization already (prepared before, "
            "frozen, or weight_norm); start from the plain model"
        )
    specs = recipe.assign(model).specs
    parameters = dict(model.named_parameters())
    for name, spec in specs.items():
        if not torch.isfinite(parameters[name]).all():
            raise DkmError(f"{name}: the weights hold NaN or infinity; mend the model first")
        for target in targets:
            refusal = target_named(target).refuse(spec, tuple(parameters[name].shape))
            if refusal:
                raise DkmError(f"{name}: target {target} cannot hold it: {refusal}")
    return specs


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
    """Count training steps for the recipe's schedule; call it once a step.

    Raises:
        DkmError: the model is not prepared.
    """
    for layer in require_attached(model):
        layer.soft.step += steps


def require_attached(model: nn.Module) -> list[Attached]:
    """The prepared weights. Raises DkmError if there are none."""
    layers = list(attached(model))
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
