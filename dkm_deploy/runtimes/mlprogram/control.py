"""Control flow: what ``cond`` and ``while_loop`` do with the blocks inside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dkm_deploy.errors import DkmError
from dkm_deploy.runtimes.mlprogram.numerics import Overflow
from dkm_deploy.runtimes.mlprogram.step import ProgramStep, Values

_MOST_ROUNDS = 100_000


@dataclass(frozen=True)
class Body:
    """The steps of a block.

    Attributes:
        inputs: names under which the steps find the block's arguments.
        steps: in the order they run.
        outputs: names of the values that leave the block.
    """

    inputs: tuple[str, ...]
    steps: tuple[ProgramStep, ...]
    outputs: tuple[str, ...]

    def run(self, outer: Values, arguments: Sequence[Any], overflows: list[Overflow]) -> list[Any]:
        """Run on a copy of the surrounding values, and give the outputs."""
        values = outer | dict(zip(self.inputs, arguments, strict=True))
        for step in self.steps:
            step(values, overflows)
        return [values[name] for name in self.outputs]

    @property
    def takes(self) -> frozenset[str]:
        """Names of values from outside that the block reads."""
        made = set(self.inputs)
        taken: set[str] = set()
        for step in self.steps:
            taken |= step.takes - made
            made |= set(step.makes)
        return frozenset(taken | (set(self.outputs) - made))


@dataclass(frozen=True)
class Branch:
    """``cond``: one of two blocks."""

    predicate: str
    bodies: tuple[Body, Body]
    makes: tuple[str, ...]

    def __call__(self, values: Values, overflows: list[Overflow]) -> None:
        """Run the block that the predicate chooses."""
        chosen = self.bodies[0 if bool(values[self.predicate]) else 1]
        results = chosen.run(values, (), overflows)
        values.update(zip(self.makes, results, strict=True))


@dataclass(frozen=True)
class Loop:
    """``while_loop``: a block that is run while another one says so."""

    start: tuple[str, ...]
    condition: Body
    body: Body
    makes: tuple[str, ...]

    def __call__(self, values: Values, overflows: list[Overflow]) -> None:
        """Run to the end. Raises DkmError if that does not come."""
        carried = [values[name] for name in self.start]
        for _ in range(_MOST_ROUNDS):
            (go_on,) = self.condition.run(values, carried, overflows)
            if not bool(go_on):
                values.update(zip(self.makes, carried, strict=True))
                return
            carried = self.body.run(values, carried, overflows)
        raise DkmError(f"a loop has not ended after {_MOST_ROUNDS} rounds")
