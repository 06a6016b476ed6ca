"""Where a Core AI program computes which layer: the operations that read a palettized weight."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from dkm_deploy.runtimes import Tap

_KEY = re.compile(r'^dense_resource<"?(?P<weight>.*)\.indices"?>')
_DECODE, _CONSTANT = "coreai.lut_to_dense", "coreai.constant"
_ADD, _RESHAPE = "coreai.decomposable.broadcasting_add", "coreai.reshape"
_PAD = "coreai.pad"


@dataclass(frozen=True)
class FoundTap:
    """A tap, and the two values of the program that it is about."""

    tap: Tap
    input: Any
    output: Any

    @property
    def values(self) -> dict[str, Any]:
        """The values by the names that the tap has for them."""
        return {self.tap.input: self.input, self.tap.output: self.output}


def find_taps(graph: Any, weights: Collection[str]) -> Iterator[FoundTap]:
    """A tap for every operation that computes something from data and one of ``weights``.

    The weight is followed through operations that take nothing else. Operations inside others are
    not looked at.

    Args:
        graph: of the authoring interface of coreai-core.
        weights: qualified parameter names.
    """
    constant: set[Any] = set()
    from_weight: dict[Any, str] = {}
    for number, operation in enumerate(graph.entry_block.operations):
        data = [o for o in operation.operands if o not in constant and o not in from_weight]
        weight = next((from_weight[o] for o in operation.operands if o in from_weight), None)
        if operation.name == _DECODE and _weight(operation) in weights:
            from_weight[operation.results[0]] = _weight(operation)
        elif weight is not None and data:
            taken, made = _around(data[0], operation.results[0], constant)
            yield FoundTap(Tap(weight, f"{weight}:{number}:in", f"{weight}:{number}"), taken, made)
        elif weight is not None:
            from_weight.update((result, weight) for result in operation.results)
        elif not data and not list(operation.operation.regions):
            constant.update(operation.results)


def _weight(decode: Any) -> str:
    """The parameter that the key of a decode's indices names, or nothing."""
    indices = decode.operands[0].owner
    found = indices.name == _CONSTANT and _KEY.match(str(indices.attributes["value"]))
    return found["weight"] if found else ""


def _around(taken: Any, made: Any, constant: Collection[Any]) -> tuple[Any, Any]:
    """What a whole layer takes and gives.

    It pads its input itself, a convolution of one dimension is reshaped to one of two and back, and
    a constant that alone is added to what it gives is its bias.
    """
    taken = _before(taken, _PAD) or taken
    narrow, biased = _before(taken, _RESHAPE), False
    while (user := _only_user(made)) is not None:
        if user.name == _ADD and not biased and any(o in constant for o in user.operands):
            biased = True
        elif user.name == _RESHAPE and narrow is not None:
            taken, narrow = narrow, None
        else:
            break
        made = user.results[0]
    return taken, made


def _before(value: Any, name: str) -> Any:
    """What an operation called ``name`` made ``value`` of; None if another one made it."""
    maker = value.owner
    return maker.operands[0] if getattr(maker, "name", "") == name else None


def _only_user(value: Any) -> Any:
    users = [use.owner for use in value.uses]
    return users[0] if len(users) == 1 else None
