"""Recipe: which parameter gets which palette, and why the rest stays dense."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from dkm_deploy._support.argument_checks import record, short, usage
from dkm_deploy._support.atomic_files import atomic_path
from dkm_deploy._support.paths import path_of
from dkm_deploy.assignment import Assignment, assign, candidates_of
from dkm_deploy.errors import ArgumentError
from dkm_deploy.palette_spec import PaletteSpec
from dkm_deploy.recipe_file import read_recipe, recipe_text
from dkm_deploy.rule import Predicate, Rule
from dkm_deploy.schedule import Schedule


@dataclass(frozen=True)
class Recipe:
    """Rules for a whole model; the first rule that a parameter meets decides.

    Attributes:
        default: palette of the parameters that meet no rule; None leaves them dense. A weight whose
            channels it does not divide gets the nearest palette that does; one that has too few
            values for it, or the same value throughout, stays dense. :meth:`assign` lists these.
        rules: rules in the order in which they are tried. A rule may be a function of the name, the
            module and the parameter: it gives a spec or bits, False to leave the parameter dense,
            or None for what the next rules say. Unlike the default, the spec of a rule must fit.
        schedule: schedule of the temperature during training; None keeps the temperature constant.

    Raises:
        DkmError: an argument has another type.

    Example:
        >>> recipe = dkm.Recipe(
        ...     default=dkm.PaletteSpec(bits=4), rules=[dkm.Rule(match="0.*", skip=True)]
        ... )
        >>> model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
        >>> list(dkm.palettes(dkm.palettize(model, recipe)))
        ['1.weight']

        A rule by type of module, and one that is a function:

        >>> def wide(name, module, parameter):
        ...     return 2 if parameter.shape[0] >= 8 else None
        >>> recipe = dkm.Recipe(rules=[wide, dkm.Rule(module="Linear", spec=4)])
        >>> [spec.bits for spec in recipe.assign(model).specs.values()]
        [2, 4]
    """

    default: PaletteSpec | None = None
    rules: Sequence[Rule | Predicate] = ()
    schedule: Schedule | None = None

    @usage('dkm.Recipe(4, rules=[dkm.Rule("fc.*", skip=True)])')
    def __post_init__(self) -> None:
        if self.default is not None:
            object.__setattr__(self, "default", PaletteSpec.of(self.default, "default"))
        rules = tuple(self.rules) if isinstance(self.rules, Iterable) else (self.rules,)
        for rule in rules:
            if isinstance(rule, type) or not callable(rule):
                record("rules", rule, Rule)
        object.__setattr__(self, "rules", rules)
        if self.schedule is not None:
            record("schedule", self.schedule, Schedule)

    @classmethod
    def of(cls, value: RecipeLike) -> Recipe:
        """Convert a plan, a spec or a number of bits to a recipe; one is returned unchanged.

        Args:
            value: a ``Recipe``, what has one (a ``Plan``), a ``PaletteSpec``, or an integer number
                of bits, 1 to 8.

        Returns:
            A recipe.

        Raises:
            DkmError: ``value`` is none of these, or is out of range.

        Example:
            >>> dkm.Recipe.of(4) == dkm.Recipe.uniform(bits=4)
            True
        """
        for found in (value, getattr(value, "recipe", None)):
            if isinstance(found, cls):
                return found
        if isinstance(value, (str, Path)) and Path(value).suffix == ".toml":
            raise ArgumentError(f"recipe is {str(value)!r}; give dkm.Recipe.load({str(value)!r})")
        if isinstance(value, Rule):
            raise ArgumentError("recipe is a rule; give dkm.Recipe(rules=[rule])")
        if isinstance(value, PaletteSpec) or hasattr(value, "__index__"):
            return cls(PaletteSpec.of(value, "recipe"))
        raise ArgumentError(
            f"recipe is {short(value)}; give a dkm.Recipe, a dkm.PaletteSpec or bits"
        )

    @classmethod
    def uniform(
        cls,
        bits: int,
        *,
        cluster_dim: int = 1,
        axis: int = 0,
        group_size: int | None = None,
        per_channel_scale: bool = False,
        keep_zeros: bool | None = None,
    ) -> Recipe:
        """Make a recipe that gives the same palette layout to every weight.

        Args:
            bits: as in :class:`PaletteSpec`, like the arguments below.
            cluster_dim: values in one LUT entry.
            axis: dimension that a LUT entry fills and whose channels are grouped.
            group_size: number of channels that share a LUT; None is one LUT.
            per_channel_scale: whether each channel has a scale.
            keep_zeros: whether zeros have an entry of their own; None decides by their share.

        Returns:
            A recipe without rules.

        Raises:
            DkmError: a value is out of range.

        Example:
            >>> dkm.Recipe.uniform(bits=2, group_size=16).default.group_size
            16
        """
        spec = PaletteSpec(bits, cluster_dim, axis, group_size, per_channel_scale, keep_zeros)
        return cls(spec)

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a recipe from a TOML file.

        Args:
            path: a file that :meth:`save` or a person wrote.

        Returns:
            The recipe.

        Raises:
            DkmError: the file is missing, is not TOML, or has an unknown key or a bad value.

        Example:
            >>> dkm.Recipe.uniform(bits=2).save("recipe.toml")
            >>> dkm.Recipe.load("recipe.toml").default.bits
            2
        """
        content = read_recipe(path)
        return cls(content.default, content.rules, content.schedule)

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write the recipe as a TOML file, whole or not at all.

        Args:
            path: the file to write.
            force: replace an existing file.

        Raises:
            OutputExistsError: ``path`` exists and ``force`` is not set.
            DkmError: a rule is a function.

        Example:
            >>> dkm.Recipe.uniform(bits=2).save("recipe.toml")
            >>> dkm.Recipe.uniform(bits=4).save("recipe.toml", force=True)
        """
        with atomic_path(path_of(path), force=force) as temporary:
            temporary.write_text(self.to_toml(), "utf-8")

    def to_toml(self) -> str:
        """Convert the recipe to TOML.

        Returns:
            The text of a TOML file.

        Raises:
            DkmError: a rule is a function.

        Example:
            >>> print(dkm.Recipe.uniform(bits=2).to_toml().splitlines()[3])
            bits = 2
        """
        return recipe_text(self.default, self.rules, self.schedule)

    def assign(self, model: nn.Module | Mapping[str, Tensor]) -> Assignment:
        """Decide for every parameter of a model which palette it gets.

        Weights are floating-point parameters of rank 2 or more. Other parameters (biases, norms)
        stay dense. Tied parameters are listed once, under their first name.

        Args:
            model: a module, or its parameters by name. They may be on the meta device; values are
                read only to find weights that have one value throughout.

        Returns:
            The specs, the reasons of what stays dense, and where the default did not fit, by
            qualified parameter name.

        Raises:
            DkmError: the pattern of a rule matches no weight, or the spec of a rule does not fit
                its weight.

        Example:
            >>> dkm.Recipe.uniform(bits=2).assign(nn.Linear(8, 4)).dense
            {'bias': 'rank 1: biases and norms stay dense'}
        """
        return assign(candidates_of(model), self.rules, self.default)


class Planned(Protocol):
    """What has a recipe, as a plan."""

    @property
    def recipe(self) -> Recipe:
        """Which weight gets which palette."""
        ...


RecipeLike = Recipe | PaletteSpec | int | Planned
"""What is taken for a recipe; a spec or a number of bits is for every weight."""
