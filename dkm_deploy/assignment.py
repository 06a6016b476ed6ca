"""A recipe applied to a model: the palette of every weight, and why the rest stays dense."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from dkm_deploy.errors import DkmError
from dkm_deploy.nn_utils.copies import unwrap
from dkm_deploy.nn_utils.sharded import is_sharded
from dkm_deploy.nn_utils.weights import weights
from dkm_deploy.palette_spec import PaletteSpec, nearest_spec
from dkm_deploy.rule import Predicate, Rule


@dataclass(frozen=True)
class Assignment:
    """A recipe applied to a model: every parameter is in exactly one of the first two.

    Attributes:
        specs: palette by qualified parameter name.
        dense: reason to stay dense by qualified parameter name.
        adjusted: of weights that cannot have the recipe's default as it is, what they have instead
            and why, by qualified parameter name.
        defaulted: names of the weights that have the default, or what is nearest to it.
    """

    specs: Mapping[str, PaletteSpec]
    dense: Mapping[str, str]
    adjusted: Mapping[str, str]
    defaulted: Collection[str]


@dataclass(frozen=True)
class Candidate:
    """A parameter that rules may be about.

    Attributes:
        uses: its qualified names, each with the module that has it, or None where there are but
            names. More than one if it is tied; it goes by the first.
        value: the parameter, or what norms and masks make of it.
    """

    uses: tuple[tuple[str, nn.Module | None], ...]
    value: Tensor

    @property
    def name(self) -> str:
        """What it goes by."""
        return self.uses[0][0]


def candidates_of(model: nn.Module | Mapping[str, Tensor]) -> list[Candidate]:
    """The parameters of a model, tied ones once, or a mapping of them."""
    if not isinstance(model, nn.Module):
        return [Candidate(((name, None),), value) for name, value in model.items()]
    model = unwrap(model)
    paths = defaultdict[int, list[str]](list)
    for path, module in model.named_modules(remove_duplicate=False):
        paths[id(module)].append(path)
    return [
        Candidate(
            tuple(
                (f"{path}.{attribute}".lstrip("."), module)
                for module, attribute in weight.places
                for path in paths[id(module)]
            ),
            weight.value,
        )
        for weight in weights(model).values()
    ]


def assign(
    candidates: Sequence[Candidate], rules: Sequence[Rule | Predicate], default: PaletteSpec | None
) -> Assignment:
    """Decide for every parameter; see :meth:`dkm_deploy.Recipe.assign`."""
    specs: dict[str, PaletteSpec] = {}
    dense: dict[str, str] = {}
    adjusted: dict[str, str] = {}
    defaulted: list[str] = []
    for candidate in candidates:
        name, shape = candidate.name, tuple(candidate.value.shape)
        reason = not_a_weight(candidate.value)
        if reason:
            dense[name] = reason
            continue
        choice = _choose(candidate, rules)
        if isinstance(choice, str):
            dense[name] = choice
        elif choice is not None:
            refusal = choice.refuse(shape)
            if refusal:
                raise DkmError(f"{name}: {refusal}")
            specs[name] = choice
        elif default is None:
            dense[name] = "the recipe has no default"
        else:
            spec, change = nearest_spec(default, shape)
            reason = _not_worth(candidate.value, spec)
            if reason:
                dense[name] = reason
                continue
            specs[name] = spec
            defaulted.append(name)
            if change:
                adjusted[name] = change
    found = [one for one in candidates if not not_a_weight(one.value)]
    _check_met([rule for rule in rules if isinstance(rule, Rule)], found)
    return Assignment(specs, dense, adjusted, frozenset(defaulted))


def not_a_weight(parameter: Tensor) -> str | None:
    """Why no recipe clusters this parameter, or None if it is a weight."""
    if not parameter.is_floating_point():
        return "not floating-point"
    if parameter.ndim < 2:
        return f"rank {parameter.ndim}: biases and norms stay dense"
    return None


def constant_text(parameter: Tensor) -> str:
    """That all values of a parameter are equal, in words; empty if they are not, or not known."""
    if parameter.is_meta or is_sharded(parameter) or not parameter.numel():
        return ""
    flat = parameter.detach().reshape(-1)
    if flat[0] != flat[-1] or not (flat == flat[0]).all():
        return ""
    return f"all its values are {flat[0].item():g}"


def _not_worth(parameter: Tensor, spec: PaletteSpec) -> str:
    """Why the default palette is not worth having, or empty."""
    groups = 1 if spec.group_size is None else parameter.shape[spec.axis] // spec.group_size
    entries = (groups << spec.bits) * spec.cluster_dim
    if entries >= parameter.numel():
        return f"{parameter.numel()} values: its LUTs would hold {entries}"
    return constant_text(parameter)


def _choose(candidate: Candidate, rules: Sequence[Rule | Predicate]) -> PaletteSpec | str | None:
    """What the first rule that a parameter meets gives it: a palette, or why it stays dense.

    None if it meets no rule.
    """
    for rule in rules:
        if not isinstance(rule, Rule):
            choice = _ask(rule, candidate)
            if choice is not None:
                return choice
        elif _meets(candidate, rule, candidate.value.numel()):
            return rule.spec or f"skipped by {rule}"
    return None


def _ask(predicate: Predicate, candidate: Candidate) -> PaletteSpec | str | None:
    """The first answer of a rule that is a function, which is asked under every name."""
    told = f"rule {getattr(predicate, '__name__', type(predicate).__name__)}"
    for name, module in candidate.uses:
        if module is None:
            raise DkmError(f"{told} is a function of modules, which files have not; give names")
        answer = predicate(name, module, candidate.value)
        if answer is False:
            return f"skipped by {told}"
        if answer is not None:
            return PaletteSpec.of(answer, f"{name}: what {told} gives")
    return None


def _meets(candidate: Candidate, rule: Rule, elements: int) -> bool:
    return any(rule.meets(name, elements, module) for name, module in candidate.uses)


def _check_met(rules: Sequence[Rule], candidates: Sequence[Candidate]) -> None:
    """Raise DkmError for rules that are about no weight of the model, whatever its size."""
    unmet = [rule for rule in rules if not any(_meets(one, rule, 0) for one in candidates)]
    if not unmet:
        return
    which = f"no weight of the model matches {', '.join(map(str, unmet))}"
    told = f"weights are {_list_some([one.name for one in candidates])}"
    if any(rule.module for rule in unmet):
        kinds = dict.fromkeys(
            type(module).__name__ for one in candidates for _, module in one.uses if module
        )
        told += f"; modules are {_list_some(list(kinds))}" if kinds else "; files have no modules"
    raise DkmError(f"{which}; {told}")


def _list_some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", .." if len(names) > 5 else "")
