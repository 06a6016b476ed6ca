"""What PyTorch stacks on a parameter (norms, pruning masks, parametrizations), and its outcome.

A layer under ``weight_norm`` has no parameter ``weight``: it computes one of others, in a hook of
the old kind or in a parametrization. What a user means by ``conv.weight`` is what comes out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrize import ParametrizationList

from dkm_deploy.nn_utils.copies import independent_copy, unwrap
from dkm_deploy.nn_utils.weight_hooks import (
    hook_module,
    hooks_of,
    parameter_names,
    sources_of,
    unhook,
    value_of,
)

Place = tuple[nn.Module, str]
"""A module and the attribute by which it uses a weight."""


class OwnParametrization(nn.Module):
    """Base of the parametrizations of this project, those of prepared and of frozen weights."""


@dataclass(frozen=True)
class Weight:
    """A parameter, or what is computed of parameters and used in the place of one.

    Attributes:
        value: the parameter; where something is stacked on it, what comes out in eval mode,
            detached.
        sources: the parameters it is computed of; itself where nothing is stacked on it.
        places: every (module, attribute) that uses it.
    """

    value: Tensor
    sources: tuple[Tensor, ...]
    places: tuple[Place, ...]

    @property
    def is_stacked(self) -> bool:
        """Whether it is computed."""
        return self.value is not self.sources[0]


def weights(model: nn.Module, *, palettes: bool = False) -> dict[str, Weight]:
    """Every parameter by its first name, and what is computed of some in their place.

    There is ``conv.weight`` for ``conv.weight_g`` and ``conv.weight_v``. Changes nothing.

    Args:
        model: any module.
        palettes: whether weights that are decoded from palettes, or prepared, are among them.
    """
    found: dict[str, Weight] = {}
    names = defaultdict[tuple[int, ...], list[str]](list)
    for prefix, module in _layers(model):
        for attribute, value, sources in _tensors(module, palettes=palettes):
            new = Weight(value, sources, ((module, attribute),))
            alike = names[tuple(map(id, sources))]
            tied = next((name for name in alike if _is_tied(found[name], new)), None)
            if tied is None:
                name = f"{prefix}.{attribute}".lstrip(".")
                alike.append(name)
                found[name] = new
            else:
                found[tied] = replace(found[tied], places=(*found[tied].places, *new.places))
    return found


def is_plain(model: nn.Module) -> bool:
    """Whether nothing but palettes is stacked on any parameter of a model."""
    return not any(hooks_of(m) or dict(_chains(m)) for _, m in _layers(model))


def with_plain_parameters(model: nn.Module) -> nn.Module:
    """A model as it is, or a copy whose parameters hold what was computed in their place.

    Without what ``torch.compile``, DataParallel or DDP have put around it. Palettes stay.
    """
    model = unwrap(model)
    return model if is_plain(model) else bake(independent_copy(model))


@torch.no_grad()
def bake(copied: nn.Module, *, palettes: bool = False) -> nn.Module:
    """:func:`with_plain_parameters` in place, of a copy that :func:`independent_copy` made.

    Args:
        copied: the copy.
        palettes: whether palettes are decoded too, into parameters.
    """
    found = weights(copied, palettes=palettes).values()
    for weight in [weight for weight in found if weight.is_stacked]:
        value, source = weight.value.clone(), weight.sources[0]
        if not source.is_floating_point():  # the indices of a palette
            value = nn.Parameter(value)
        elif isinstance(source, nn.Parameter):
            trains = any(one.requires_grad for one in weight.sources)
            value = nn.Parameter(value, requires_grad=trains)
        for place in weight.places:
            put(place, value)
    return copied


def put(place: Place, value: Tensor) -> None:
    """Replace a weight, and all that is stacked on it, by a parameter or a buffer.

    A parametrized module must have a class of its own, see :func:`independent_copy`.
    """
    module, attribute = place
    if parametrize.is_parametrized(module, attribute):
        chains = cast(nn.ModuleDict, module.parametrizations)
        # What is removed leaves its original, whatever came out of it.
        chains[attribute] = ParametrizationList([nn.Identity()], value, unsafe=True)
        parametrize.remove_parametrizations(module, attribute, leave_parametrized=False)
    if attribute in hooks_of(module):
        unhook(module, attribute)
    if hasattr(module, attribute):
        delattr(module, attribute)
    if isinstance(value, nn.Parameter):
        setattr(module, attribute, value)
    else:
        module.register_buffer(attribute, value)


def used_weight(place: Place) -> Tensor:
    """What a module uses as its weight now; differentiable."""
    module, attribute = place
    hook = hooks_of(module).get(attribute)
    value: Tensor = getattr(module, attribute) if hook is None else value_of(module, hook)
    return value


def is_nested(place: Place) -> bool:
    """Whether a hook computes a weight of what another computes, as a mask of ``weight_v`` does."""
    hooks = hooks_of(place[0])
    return place[1] in hooks and not hooks.keys().isdisjoint(parameter_names(hooks[place[1]]))


def as_parametrization(place: Place) -> None:
    """Make a parametrization of a hook, if one computes the weight; parameters stay the same."""
    module, attribute = place
    if attribute not in hooks_of(module):
        return
    hook = hooks_of(module)[attribute]
    parameters = [getattr(module, name) for name in parameter_names(hook)]
    stand_in = nn.Parameter(value_of(module, hook).detach())
    parametrization = hook_module(module, hook).train(module.training)
    unhook(module, attribute)
    module.register_parameter(attribute, stand_in)
    parametrize.register_parametrization(module, attribute, parametrization, unsafe=True)
    chain = cast(nn.ModuleDict, module.parametrizations)[attribute]
    _start_from(cast(ParametrizationList, chain), parameters)


def _start_from(chain: ParametrizationList, parameters: list[nn.Parameter]) -> None:
    if len(parameters) == 1:
        chain.register_parameter("original", parameters[0])
        return
    del chain.original
    chain.is_tensor, chain.ntensors = False, len(parameters)
    for number, parameter in enumerate(parameters):
        chain.register_parameter(f"original{number}", parameter)


@torch.no_grad()
def chain_output(chain: ParametrizationList, count: int | None = None) -> Tensor:
    """What the first ``count`` parametrizations of a chain give in eval mode; all if None."""
    first, *rest = list(chain)[:count]
    with eval_modules((first, *rest)):
        value: Tensor = first(*originals(chain))
        for one in rest:
            value = one(value)
    return value.detach()


def originals(chain: ParametrizationList) -> tuple[Tensor, ...]:
    """The parameters or buffers that a chain of parametrizations starts from."""
    if chain.is_tensor:
        return (chain.original,)
    return tuple(getattr(chain, f"original{number}") for number in range(chain.ntensors))


@contextmanager
def eval_modules(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Some modules in eval mode; each of theirs has its own mode afterwards."""
    modes = [(one, one.training) for module in modules for one in module.modules()]
    try:
        for one, _ in modes:
            one.training = False
        yield
    finally:
        for one, training in modes:
            one.training = training


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All modules but those in parametrizations, each once, with their first names."""
    inside: set[int] = set()
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module):
            inside.update(map(id, cast(nn.ModuleDict, module.parametrizations).modules()))
        if id(module) not in inside:
            yield name, module


def _tensors(
    module: nn.Module, *, palettes: bool
) -> Iterator[tuple[str, Tensor, tuple[Tensor, ...]]]:
    """Name, value and sources of each weight that a module has itself."""
    hooks = hooks_of(module)
    parts = {name for hook in hooks.values() for name in parameter_names(hook)}
    for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
        if name not in parts:
            yield name, parameter, (parameter,)
    for name, hook in hooks.items():
        if name not in parts:
            yield name, value_of(module, hook).detach(), tuple(sources_of(module, hook))
    for name, chain in _chains(module, palettes=palettes):
        yield name, chain_output(chain), originals(chain)


def _is_tied(weight: Weight, other: Weight) -> bool:
    """Whether two places that start from the same parameters use one weight."""
    if not weight.is_stacked or not other.is_stacked:
        return weight.value is other.value
    return torch.equal(weight.value, other.value)


def _chains(
    module: nn.Module, *, palettes: bool = False
) -> Iterator[tuple[str, ParametrizationList]]:
    """The parametrizations of a module by attribute; those with a palette if it is asked for."""
    if parametrize.is_parametrized(module):
        for name, chain in cast(nn.ModuleDict, module.parametrizations).items():
            own = any(isinstance(one, OwnParametrization) for one in cast(nn.ModuleList, chain))
            if palettes or not own:
                yield name, cast(ParametrizationList, chain)


def places(model: nn.Module) -> dict[str, list[Place]]:
    """Every (module, attribute) that uses each parameter, by the parameter's first name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found: dict[str, list[Place]] = {name: [] for name in names.values()}
    for module in model.modules():
        for attribute, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            found[names[id(parameter)]].append((module, attribute))
    return found
