"""The gates of recurrent layers: blocks of rows that each format orders and stacks in its own way.

An LSTM has 4 gates, a GRU 3, an RNN 1. Files hold those of both directions one after the other, and
the two biases side by side or added up.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dkm_deploy.validation.dense_weights.values import are_equal, error_of, round_to

Array = NDArray[Any]

_RECURRENT = re.compile(r"(?:.*\.)?(weight|bias)_(?:ih|hh)(?:_l\d+)?(?:_reverse)?")
_COUNTS = (1, 3, 4)
_START = 8  # values by which gates are looked up


@dataclass(frozen=True)
class Gate:
    """A gate, or the sum of two biases' gates, or the zeros of a bias that is not there.

    Attributes:
        sources: the weight or the biases; none of zeros.
        number: of the gate.
        count: of the weight's gates.
        values: flat.
    """

    sources: tuple[str, ...]
    number: int
    count: int
    values: Array


class Gates:
    """The gates of all recurrent weights and biases of a model.

    Args:
        tensors: by qualified name.
    """

    def __init__(self, tensors: Mapping[str, Array]) -> None:
        self._gates = tuple(_gates(tensors))

    def made_of(self, stored: Array) -> list[Gate] | None:
        """The gates that flat values are, one after the other; None if they are no gates."""
        if stored.size < 2:
            return None
        every = (self._made_of(stored, count) for count in _COUNTS)
        return next((found for found in every if found is not None), None)

    def _made_of(self, stored: Array, count: int) -> list[Gate] | None:
        """As ``made_of``, of layers with so many gates: a third of one may start two quarters."""
        starts = self._starts(stored.dtype, count)
        found: list[Gate] = []
        place = 0
        while place < stored.size:
            gate = _longest(stored[place:], starts)
            if gate is None:
                return None
            found.append(gate)
            place += gate.values.size
        return found if any(gate.sources for gate in found) else None

    def like(self, stored: Array) -> Iterator[list[Gate]]:
        """For each length of gates, those that are nearest to the parts of flat values."""
        for size in {gate.values.size for gate in self._gates if gate.values.size > 1}:
            if stored.size % size == 0:
                fitting = [gate for gate in self._gates if gate.values.size == size]
                parts = stored.reshape(-1, size)
                nearest = [[error_of(part, gate.values)[0] for gate in fitting] for part in parts]
                yield [fitting[int(np.argmin(each))] for each in nearest]

    def _starts(self, dtype: np.dtype[Any], count: int) -> dict[bytes, list[Gate]]:
        """Gates of layers with ``count`` of them by the bytes of their first values in a file."""
        found: dict[bytes, list[Gate]] = defaultdict(list)
        for gate in [gate for gate in self._gates if gate.count == count]:
            found[round_to(gate.values[:_START], dtype).tobytes()].append(gate)
        return found


def _longest(stored: Array, starts: Mapping[bytes, list[Gate]]) -> Gate | None:
    """The longest gate that flat values start with."""
    lengths = {len(start) // stored.itemsize for start in starts}
    fitting = [
        gate
        for length in lengths
        for gate in starts.get(stored[:length].tobytes(), ())
        if are_equal(stored[: gate.values.size], gate.values)
    ]
    return max(fitting, key=lambda gate: gate.values.size, default=None)


def _gates(tensors: Mapping[str, Array]) -> Iterator[Gate]:
    for name, array in tensors.items():
        match = _RECURRENT.fullmatch(name)
        if match is None or not array.size:
            continue
        second = name.replace("bias_ih", "bias_hh")
        other = tensors.get(second) if second != name else None
        for count in _COUNTS:
            if len(array) % count:
                continue
            yield from _split((name,), array, count)
            if match[1] == "bias":
                yield Gate((), 0, count, np.zeros_like(array[: len(array) // count]))
            if other is not None and other.shape == array.shape:
                yield from _split((name, second), array + other, count)


def _split(names: tuple[str, ...], array: Array, count: int) -> Iterator[Gate]:
    for number, block in enumerate(np.split(array, count)):
        yield Gate(names, number, count, block.reshape(-1))
