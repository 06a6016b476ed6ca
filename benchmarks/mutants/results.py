"""What became of the mutants: noticed, not noticed, or no fault at all."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_HERE = Path(__file__).parent
_NOTICED = ("killed", "timeout", "segfault", "caught by type check")
_SURVIVED = ("survived", "no tests")


@dataclass(frozen=True)
class Mutant:
    """A function with one small change.

    Attributes:
        name: module, function and number, as mutmut has it.
        status: as mutmut has it, such as "killed", "survived" or "no tests".
        before: the line that was changed; empty unless it survived.
        after: what stands in its place.
    """

    name: str
    status: str
    before: str
    after: str

    @property
    def function(self) -> str:
        """Module and function, without the number."""
        return re.sub(r"__mutmut_\d+$", "", self.name).replace("x_", "", 1)


@dataclass(frozen=True)
class Equivalent:
    """A change that no test can notice, because it changes nothing that matters.

    Attributes:
        before: regular expression for the changed line.
        after: one for what stands in its place.
        why: the reason.
        function: end of the function's name, if the reason holds there alone.
    """

    before: str
    after: str
    why: str
    function: str = ""

    def holds(self, mutant: Mutant) -> bool:
        """Whether ``mutant`` is such a change."""
        return (
            mutant.function.endswith(self.function)
            and re.search(self.before, mutant.before) is not None
            and re.search(self.after, mutant.after) is not None
        )


@dataclass(frozen=True)
class Score:
    """How many mutants of an area there are, and what became of them."""

    mutants: int
    noticed: int
    equivalent: int
    untried: int
    survivors: tuple[Mutant, ...]

    @property
    def share(self) -> float:
        """Those noticed, of those that were tried and are not equivalent; 0 to 1."""
        tried = self.noticed + len(self.survivors)
        return self.noticed / tried if tried else 0.0


def mutants_in(folder: Path) -> list[Mutant]:
    """Every mutant of an area's folder, in the order of its source."""
    listed = subprocess.run(
        [sys.executable, str(_HERE / "survivors.py")],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return [Mutant(**json.loads(line)) for line in listed.stdout.splitlines()]


def score(mutants: Sequence[Mutant]) -> Score:
    """Count mutants."""
    survivors = [mutant for mutant in mutants if mutant.status in _SURVIVED]
    alike = {m.name for m in survivors if any(rule.holds(m) for rule in equivalents())}
    noticed = sum(mutant.status in _NOTICED for mutant in mutants)
    return Score(
        mutants=len(mutants),
        noticed=noticed,
        equivalent=len(alike),
        untried=len(mutants) - noticed - len(survivors),
        survivors=tuple(mutant for mutant in survivors if mutant.name not in alike),
    )


def drawn(mutants: Sequence[Mutant], count: int) -> list[str]:
    """Names of ``count`` mutants that were not tried, or of all, drawn at random."""
    untried = [mutant.name for mutant in mutants if mutant.status not in _NOTICED + _SURVIVED]
    return random.Random(0).sample(untried, min(count, len(untried)))  # noqa: S311  # no secret


def to_try_again(mutants: Sequence[Mutant]) -> list[str]:
    """Names of survivors, and of what took too long: a loaded machine may be to blame."""
    slow = [mutant.name for mutant in mutants if mutant.status == "timeout"]
    return [*slow, *(mutant.name for mutant in score(mutants).survivors)]


def total(scores: Sequence[Score]) -> Score:
    """The scores of several areas as one."""
    return Score(
        mutants=sum(found.mutants for found in scores),
        noticed=sum(found.noticed for found in scores),
        equivalent=sum(found.equivalent for found in scores),
        untried=sum(found.untried for found in scores),
        survivors=tuple(mutant for found in scores for mutant in found.survivors),
    )


@cache
def equivalents() -> tuple[Equivalent, ...]:
    """The list of changes that change nothing."""
    entries = tomllib.loads((_HERE / "equivalent.toml").read_text("utf-8"))
    return tuple(Equivalent(**entry) for entry in entries["equivalent"])
