"""Recipe: which parameter gets which palette, and why the rest stays dense."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import inf
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dkm_deploy._support.argument_checks import integer, real, record, short, truth
from dkm_deploy._support.atomic_files import atomic_path
from dkm_deploy._support.paths import path_of
from dkm_deploy._support.toml_file import read_toml, toml_text
from dkm_deploy.errors import DkmError
from dkm_deploy.nn_utils.weights import weights
from dkm_deploy.palette import Palette


@dataclass(frozen=True)
class PaletteSpec:
    """The shape of a palette.

    Attributes:
        bits: bits of an index, 1 to 8.
        cluster_dim: values in one LUT entry; more than 1 is vector palettization.
        axis: the dimension of the weight that a LUT entry fills, and whose channels are grouped.
        group_size: channels along ``axis`` that share a LUT; None is one LUT for the weight.
        per_channel_scale: divide each channel by its largest absolute value before clustering, and
            multiply the decoded weight with it, so that channels of very different size share a
            LUT. A channel of zeros has a scale of 0 and stays zeros. Channels are those along
            dimension 0 whatever ``axis`` is: the outputs of linear and convolution layers, the
            rows of an embedding, the inputs of a transposed convolution and of a matrix that an
            ONNX file holds as (inputs, outputs).

    Raises:
        DkmError: a value is out of range.
    """

    bits: int = 4
    cluster_dim: int = 1
    axis: int = 0
    group_size: int | None = None
    per_channel_scale: bool = False

    def __post_init__(self) -> None:
        spans = {"bits": (1, 8), "cluster_dim": (1, 16), "axis": (0, 7), "group_size": (1, None)}
        for name, (low, high) in spans.items():
            value = getattr(self, name)
            if name != "group_size" or value is not None:
                object.__setattr__(self, name, integer(name, value, low, high))
        truth("per_channel_scale", self.per_channel_scale)

    @classmethod
    def of(cls, value: Any, what: str = "spec") -> PaletteSpec:
        """``value``, or the palette of so many bits. Raises DkmError if it is neither."""
        if isinstance(value, cls):
            return value
        if isinstance(value, (bool, float, str)) or not hasattr(value, "__index__"):
            raise DkmError(f"{what} is {short(value)}; give a dkm.PaletteSpec, or bits")
        return cls(value)

    def refuse(self, shape: Sequence[int]) -> str | None:
        """Why a weight of ``shape`` cannot have this palette, or None if it can."""
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
    """What happens to the parameters that meet all its conditions.

    Attributes:
        match: fnmatch pattern on the qualified name, such as ``"layer1.*.weight"``.
        spec: the palette they get.
        skip: they stay dense. Either ``spec`` or ``skip`` is given, not both.
        max_elements: only parameters with at most this many elements.
    """

    match: str = "*"
    spec: PaletteSpec | None = None
    skip: bool = False
    max_elements: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.match, str):
            raise DkmError(f"match is {self.match!r}; it must be a pattern, such as 'layer1.*'")
        truth("skip", self.skip)
        if self.spec is not None:
            object.__setattr__(self, "spec", PaletteSpec.of(self.spec))
        if self.skip == (self.spec is not None):
            raise DkmError(f"rule {self.match!r}: give either a spec or skip = true")
        if self.max_elements is not None:
            object.__setattr__(self, "max_elements", integer("max_elements", self.max_elements, 1))

    def meets(self, name: str, elements: int) -> bool:
        """Whether a parameter of this name and size meets the conditions."""
        fits = self.max_elements is None or elements <= self.max_elements
        return fits and fnmatchcase(name, self.match)

    def __str__(self) -> str:
        size = "" if self.max_elements is None else f", max_elements {self.max_elements}"
        return f"rule {self.match!r}{size}"


@dataclass(frozen=True)
class Schedule:
    """Anneal the temperature while training; ``dkm.step`` counts the steps.

    Give ``end`` or ``gap``. Both are reached after ``steps`` steps, on a geometric way, and kept.

    Attributes:
        steps: length of the anneal.
        end: factor on every temperature; it starts at 1.
        gap: ``|soft - hard| / |weight|`` of every layer; it starts where the layer starts, and the
            layer's temperature follows.
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
        default: the palette of parameters that no rule decides; None leaves them dense.
        rules: tried in order.
        schedule: of the temperature while training; None keeps it constant.
    """

    default: PaletteSpec | None = None
    rules: Sequence[Rule] = ()
    schedule: Schedule | None = None

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
    def of(cls, value: Any) -> Recipe:
        """``value``, or the same palette for every weight.

        Raises:
            DkmError: it is neither a recipe, nor a spec, nor a number of bits.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, (str, Path)):
            raise DkmError(f"recipe is {str(value)!r}; give dkm.Recipe.load(..) of such a file")
        if isinstance(value, PaletteSpec) or hasattr(value, "__index__"):
            return cls(PaletteSpec.of(value, "recipe"))
        raise DkmError(f"recipe is {short(value)}; give a dkm.Recipe, a dkm.PaletteSpec or bits")

    @classmethod
    def uniform(
        cls,
        bits: int,
        *,
        cluster_dim: int = 1,
        axis: int = 0,
        group_size: int | None = None,
        per_channel_scale: bool = False,
    ) -> Recipe:
        """The same palette for every weight."""
        return cls(PaletteSpec(bits, cluster_dim, axis, group_size, per_channel_scale))

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a recipe from a TOML file.

        Raises:
            DkmError: the file is missing, is not TOML, or has an unknown key or a bad value.
        """
        return read_toml(path, cls, "recipe")

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write the recipe as TOML, whole or not at all.

        Raises:
            OutputExistsError: ``path`` exists and ``force`` is not set.
        """
        with atomic_path(path_of(path), force=force) as temporary:
            temporary.write_text(self.to_toml(), "utf-8")

    def to_toml(self) -> str:
        """The recipe as the text of a TOML file."""
        return toml_text(self)

    def assign(self, model: nn.Module | Mapping[str, Tensor]) -> Assignment:
        """Decide on every parameter of ``model``, tied ones once under their first name.

        Weights are floating-point parameters of rank 2 or more; the others (biases, norms) stay
        dense.

        Args:
            model: a module, or its parameters by name; only their shapes and dtypes are looked
                at, so they may be on the meta device.

        Raises:
            DkmError: the pattern of a rule matches no weight's name, or a spec does not fit the
                weight it falls on.
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
