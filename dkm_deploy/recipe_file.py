"""Recipes as TOML files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dkm_deploy._support.toml_file import read_toml, toml_text
from dkm_deploy.errors import DkmError
from dkm_deploy.palette_spec import PaletteSpec
from dkm_deploy.rule import Predicate, Rule
from dkm_deploy.schedule import Schedule


@dataclass(frozen=True)
class RecipeFile:
    """What a file holds: the fields of a :class:`dkm_deploy.Recipe`, without functions."""

    default: PaletteSpec | None = None
    rules: Sequence[Rule] = ()
    schedule: Schedule | None = None


def read_recipe(path: str | Path) -> RecipeFile:
    """Read a recipe. Raises DkmError if the file is missing, not TOML, or no recipe."""
    return read_toml(path, RecipeFile, "recipe")


def recipe_text(
    default: PaletteSpec | None, rules: Sequence[Rule | Predicate], schedule: Schedule | None
) -> str:
    """The text of a file. Raises DkmError if a rule is a function."""
    plain = [rule for rule in rules if isinstance(rule, Rule)]
    for place, rule in enumerate(rules):
        if rule not in plain:
            raise DkmError(
                f"rules[{place}] is a function ({getattr(rule, '__name__', type(rule).__name__)}), "
                "which a TOML file cannot hold; write rules with a name or a module"
            )
    return toml_text(RecipeFile(default, plain, schedule))
