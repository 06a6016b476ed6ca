"""Rules of a recipe: which parameters they are about, and what becomes of these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from torch import Tensor, nn

from dkm_deploy._support.argument_checks import integer, short, truth, usage
from dkm_deploy.errors import ArgumentError, DkmError
from dkm_deploy.palette_spec import PaletteSpec

Predicate = Callable[[str, nn.Module, Tensor], PaletteSpec | int | Literal[False] | None]
"""A rule as a function of name, module and parameter: a spec or bits, False to leave it dense, None
for what the next rules say."""


@dataclass(frozen=True)
class Rule:
    """Choice of a palette, or of none, for the parameters that meet all conditions.

    Give either ``spec`` or ``skip``.

    Attributes:
        match: fnmatch pattern for the qualified parameter name, such as ``"layer1.*.weight"``; of a
            tied weight, for any of its names.
        spec: palette of these parameters; a number of bits is short for a spec.
        skip: leave these parameters dense.
        max_elements: apply the rule only to parameters with at most this many elements.
        module: apply the rule only to parameters of modules of this type, by the name of the class
            or of one that it inherits from, such as ``"Linear"``; an fnmatch pattern too.

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
    module: str | None = None

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
        if isinstance(self.module, type):
            raise ArgumentError(f"module is a class; give its name, {self.module.__name__!r}")
        if self.module is not None and not isinstance(self.module, str):
            raise ArgumentError(f"module is {short(self.module)}; it must be a pattern")

    def meets(self, name: str, elements: int, module: nn.Module | None = None) -> bool:
        """Check whether a parameter meets all conditions of the rule.

        Args:
            name: qualified parameter name.
            elements: number of elements of the parameter.
            module: that has the parameter; None meets no rule about modules.

        Returns:
            True if the rule applies.

        Example:
            >>> dkm.Rule(match="fc.*", skip=True).meets("fc.weight", 32)
            True
        """
        fits = self.max_elements is None or elements <= self.max_elements
        return fits and fnmatchcase(name, self.match) and self._is_about(module)

    def _is_about(self, module: nn.Module | None) -> bool:
        if self.module is None:
            return True
        return module is not None and any(
            fnmatchcase(kind.__name__, self.module) for kind in type(module).__mro__
        )

    def __str__(self) -> str:
        size = "" if self.max_elements is None else f", max_elements {self.max_elements}"
        kind = "" if self.module is None else f", module {self.module!r}"
        return f"rule {self.match!r}{size}{kind}"
