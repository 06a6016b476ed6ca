"""Recipe: which parameter gets which palette, and why the rest stays dense."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import inf
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from dkm_deploy._support.argument_checks import integer, real, record, short, truth, usage
from dkm_deploy._support.atomic_files import atomic_path
from dkm_deploy._support.paths import path_of
from dkm_deploy._support.toml_file import read_toml, toml_text
from dkm_deploy.errors import ArgumentError, DkmError
from dkm_deploy.nn_utils.weights import weights
from dkm_deploy.palette import Palette


@dataclass(frozen=True)
class PaletteSpec:
    """Layout of a palette: bits, granularity and the length of a LUT entry.

    Attributes:
        bits: bits of an index, 1 to 8; a LUT has ``2**bits`` entries.
        cluster_dim: values in one LUT entry, 1 to 16; more than 1 is vector palettization.
        axis: dimension of the weight that a LUT entry fills and whose channels are grouped, 0 to 7.
        group_size: number of channels along ``axis`` that share a LUT; None is one LUT for the
            whole weight.
        per_channel_scale: divide each channel by its largest absolute value before clustering, and
            multiply the decoded weight by that value. Channels of very different magnitude can then
            share a LUT. Channels are those of dimension 0, whatever ``axis`` is: outputs of linear
            and convolution layers, rows of an embedding, inputs of a transposed convolution and of
            a matrix that an ONNX file stores as (inputs, outputs). A channel of zeros has the scale
            0 and stays zeros.
        keep_zeros: reserve one entry of the LUT for exactly 0, for the weights that are 0 and no
            others, so that a pruned model stays pruned, in training too. None does so for a weight
            of which at least half is zeros. With ``cluster_dim`` more than 1, vectors of zeros are
            kept.

    Raises:
        DkmError: a value is out of range.

    Example:
        Per tensor: one LUT for the whole weight. A LUT tensor has the shape
        ``(groups along each dimension .., 2**bits, cluster_dim)``.

        >>> model = nn.Linear(8, 4)  # a weight of shape (4, 8)
        >>> spec = dkm.PaletteSpec(bits=2)
        >>> dkm.palettes(dkm.palettize(model, spec))["weight"].lut.shape
        (1, 1, 4, 1)

        Grouped channels: one LUT for every two output channels.

        >>> spec = dkm.PaletteSpec(bits=2, group_size=2)
        >>> dkm.palettes(dkm.palettize(model, spec))["weight"].lut.shape
        (2, 1, 4, 1)

        Vectors: each LUT entry holds two weights that are neighbours along ``axis``.

        >>> spec = dkm.PaletteSpec(bits=2, cluster_dim=2, axis=1)
        >>> dkm.palettes(dkm.palettize(model, spec))["weight"].lut.shape
        (1, 1, 4, 2)
    """

    bits: int = 4
    cluster_dim: int = 1
    axis: int = 0
    group_size: int | None = None
    per_channel_scale: bool = False
    keep_zeros: bool | None = None

    @usage("dkm.PaletteSpec(bits=4, group_size=16)")
    def __post_init__(self) -> None:
        spans = {"bits": (1, 8), "cluster_dim": (1, 16), "axis": (0, 7), "group_size": (1, None)}
        for name, (low, high) in spans.items():
            value = getattr(self, name)
            if name != "group_size" or value is not None:
                object.__setattr__(self, name, integer(name, value, low, high))
        truth("per_channel_scale", self.per_channel_scale)
        if self.keep_zeros is not None:
            truth("keep_zeros", self.keep_zeros)

    @classmethod
    def of(cls, value: Any, what: str = "spec") -> PaletteSpec:
        """Convert a number of bits to a spec; a spec is returned unchanged.

        Args:
            value: a ``PaletteSpec``, or an integer number of bits, 1 to 8.
            what: name of the argument in error messages.

        Returns:
            A spec.

        Raises:
            DkmError: ``value`` is neither, or is out of range.

        Example:
            >>> dkm.PaletteSpec.of(4) == dkm.PaletteSpec(bits=4)
            True
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, (bool, float, str)) or not hasattr(value, "__index__"):
            raise ArgumentError(f"{what} is {short(value)}; give a dkm.PaletteSpec, or bits")
        return cls(value)

    def refuse(self, shape: Sequence[int]) -> str | None:
        """Check whether a weight can have this layout.

        Args:
            shape: shape of the weight.

        Returns:
            The reason why it cannot, or None if it can.

        Example:
            >>> dkm.PaletteSpec(bits=4, group_size=3).refuse((4, 8))
            'group_size 3 does not divide its 4 channels'
        """
        if self.axis >= len(shape):
            return f"axis is {self.axis}, but its shape is {tuple(shape)}"
        channels = shape[self.axis]
        if channels % self.cluster_dim:
            return f"cluster_dim {self.cluster_dim} does not divide its {channels} channels"
        if self.group_size is None:
            return None
        if channels % self.group_size:
            return f"group_size {self.group_size} does not divide its {channels} channels"
        if self.group_size % self.cluster_dim:
            return f"cluster_dim {self.cluster_dim} does not divide group_size {self.group_size}"
        return None


@dataclass(frozen=True)
class Rule:
    """Choice of a palette, or of none, for the parameters that meet all conditions.

    Give either ``spec`` or ``skip``.

    Attributes:
        match: fnmatch pattern for the qualified parameter name, such as ``"layer1.*.weight"``.
        spec: palette of these parameters; a number of bits is short for a spec.
        skip: leave these parameters dense.
        max_elements: apply the rule only to parameters with at most this many elements.

    Raises:
        DkmError: a value is out of range, or both or neither of ``spec`` and ``skip`` are given.

    Example:
        >>> rule = dkm.Rule(match="fc.weight", spec=dkm.PaletteSpec(bits=8))
        >>> recipe = dkm.Recipe(default=dkm.PaletteSpec(bits=4), rules=[rule])
        >>> recipe.rules[0].spec.bits
        8
    """

    match: str = "*"
    spec: PaletteSpec | None = None
    skip: bool = False
    max_elements: int | None = None

    @usage('dkm.Rule("layer1.*", spec=4)')
    def __post_init__(self) -> None:
        if not isinstance(self.match, str):
            raise ArgumentError(f"match is {short(self.match)}; it must be a pattern")
        truth("skip", self.skip)
        if self.spec is not None:
            object.__setattr__(self, "spec", PaletteSpec.of(self.spec))
        if self.skip == (self.spec is not None):
            raise DkmError(f"rule {self.match!r}: give either a spec or skip = true")
        if self.max_elements is not None:
            object.__setattr__(self, "max_elements", integer("max_elements", self.max_elements, 1))

    def meets(self, name: str, elements: int) -> bool:
        """Check whether a parameter meets all conditions of the rule.

        Args:
            name: qualified parameter name.
            elements: number of elements of the parameter.

        Returns:
            True if the rule applies.

        Example:
            >>> dkm.Rule(match="fc.*", skip=True).meets("fc.weight", 32)
            True
        """
        fits = self.max_elements is None or elements <= self.max_elements
        return fits and fnmatchcase(name, self.match)

    def __str__(self) -> str:
        size = "" if self.max_elements is None else f", max_elements {self.max_elements}"
        return f"rule {self.match!r}{size}"


@dataclass(frozen=True)
class Schedule:
    """Schedule of the temperature during training; :func:`dkm_deploy.step` counts the steps.

    Give either ``end`` or ``gap``. The value changes geometrically, is reached after ``steps``
    steps, and is kept from then on.

    Attributes:
        steps: number of steps until the end value is reached.
        end: final factor on every temperature; the factor starts at 1.
        gap: final ``|soft - hard| / |weight|`` of every layer. It starts at the value that the
            layer has at the first step; the temperature of the layer follows from it.

    Raises:
        DkmError: a value is out of range, or both or neither of ``end`` and ``gap`` are given.

    Example:
        >>> schedule = dkm.Schedule(steps=10, end=0.1)
        >>> recipe = dkm.Recipe(default=dkm.PaletteSpec(bits=2), schedule=schedule)
        >>> model = dkm.prepare(nn.Linear(8, 4), recipe)
        >>> before = dkm.status(model)["weight"].temperature
        >>> dkm.step(model, 10)
        >>> round(dkm.status(model)["weight"].temperature / before, 3)
        0.1
    """

    steps: int
    end: float | None = None
    gap: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", integer("steps", self.steps, 1))
        if (self.end is None) == (self.gap is None):
            raise DkmError("give either end or gap")
        for name in ("end", "gap"):
            value = getattr(self, name)
            if value is not None and real(name, value, above=0) == inf:
                raise DkmError(f"{name} is {value!r}; it must be a finite number above 0")


@dataclass(frozen=True)
class Assignment:
    """A recipe applied to a model: every parameter is in exactly one of the two.

    Attributes:
        specs: palette by qualified parameter name.
        dense: reason to stay dense by qualified parameter name.
    """

    specs: Mapping[str, PaletteSpec]
    dense: Mapping[str, str]


@dataclass(frozen=True)
class Recipe:
    """Rules for a whole model; the first rule that a parameter meets decides.

    Attributes:
        default: palette of the parameters that meet no rule; None leaves them dense.
        rules: rules in the order in which they are tried.
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
    """

    default: PaletteSpec | None = None
    rules: Sequence[Rule] = ()
    schedule: Schedule | None = None

    @usage('dkm.Recipe(4, rules=[dkm.Rule("fc.*", skip=True)])')
    def __post_init__(self) -> None:
        if self.default is not None:
            object.__setattr__(self, "default", PaletteSpec.of(self.default, "default"))
        rules = self.rules if isinstance(self.rules, Iterable) else (self.rules,)
        for rule in rules:
            record("rules", rule, Rule)
        object.__setattr__(self, "rules", tuple(rules))
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
        return read_toml(path, cls, "recipe")

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write the recipe as a TOML file, whole or not at all.

        Args:
            path: the file to write.
            force: replace an existing file.

        Raises:
            OutputExistsError: ``path`` exists and ``force`` is not set.

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

        Example:
            >>> print(dkm.Recipe.uniform(bits=2).to_toml().splitlines()[3])
            bits = 2
        """
        return toml_text(self)

    def assign(self, model: nn.Module | Mapping[str, Tensor]) -> Assignment:
        """Decide for every parameter of a model which palette it gets.

        Weights are floating-point parameters of rank 2 or more. Other parameters (biases, norms)
        stay dense. Tied parameters are listed once, under their first name.

        Args:
            model: a module, or its parameters by name. Only shapes and dtypes are read, so the
                parameters may be on the meta device.

        Returns:
            The specs, and the reasons of what stays dense, by qualified parameter name.

        Raises:
            DkmError: the pattern of a rule matches no weight, or a spec does not fit its weight.

        Example:
            >>> dkm.Recipe.uniform(bits=2).assign(nn.Linear(8, 4)).dense
            {'bias': 'rank 1: biases and norms stay dense'}
        """
        specs: dict[str, PaletteSpec] = {}
        dense: dict[str, str] = {}
        unused = set(self.rules)
        named: Mapping[str, Tensor] = (
            {name: weight.value for name, weight in weights(model).items()}
            if isinstance(model, nn.Module)
            else model
        )
        for name, parameter in named.items():
            reason = not_a_weight(parameter)
            if reason:
                dense[name] = reason
                continue
            rule = next((r for r in self.rules if r.meets(name, parameter.numel())), None)
            unused -= {r for r in self.rules if fnmatchcase(name, r.match)}
            spec = rule.spec if rule else self.default
            if spec is None:
                dense[name] = f"skipped by {rule}" if rule else "the recipe has no default"
                continue
            refusal = spec.refuse(parameter.shape)
            if refusal:
                raise DkmError(f"{name}: {refusal}")
            specs[name] = spec
        if unused:
            which = ", ".join(str(rule) for rule in self.rules if rule in unused)
            raise DkmError(
                f"no weight of the model matches {which}; weights are {_list_some(specs, dense)}"
            )
        return Assignment(specs, dense)


class Planned(Protocol):
    """What has a recipe, as a plan."""

    @property
    def recipe(self) -> Recipe:
        """Which weight gets which palette."""
        ...


RecipeLike = Recipe | PaletteSpec | int | Planned
"""What is taken for a recipe; a spec or a number of bits is for every weight."""


def not_a_weight(parameter: Tensor) -> str | None:
    """Why no recipe clusters this parameter, or None if it is a weight."""
    if not parameter.is_floating_point():
        return "not floating-point"
    if parameter.ndim < 2:
        return f"rank {parameter.ndim}: biases and norms stay dense"
    return None


def _list_some(specs: Mapping[str, PaletteSpec], dense: Mapping[str, str]) -> str:
    names = [*specs, *(n for n, reason in dense.items() if reason.startswith("skipped"))]
    return ", ".join(names[:5]) + (", .." if len(names) > 5 else "")


def spec_of(palette: Palette) -> PaletteSpec:
    """The spec that gives palettes of this layout."""
    groups = palette.groups[palette.axis]
    size = None if groups == 1 else palette.shape[palette.axis] // groups
    scaled = palette.scale is not None
    return PaletteSpec(palette.bits, palette.cluster_dim, palette.axis, size, scaled)
