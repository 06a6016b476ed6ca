"""Which dense tensor of a file is which weight of the reference, by name and by value."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dkm_deploy.formats.dense_tensor import DenseTensor
from dkm_deploy.validation.dense_weights.layouts import folded_tensors, layouts
from dkm_deploy.validation.dense_weights.recurrent_gates import Gate, Gates
from dkm_deploy.validation.dense_weights.reference import DenseReference
from dkm_deploy.validation.dense_weights.values import (
    are_equal,
    are_rows,
    error_of,
    is_computed,
    is_like,
    is_multiple,
    nearest_rows,
)

Array = NDArray[Any]


@dataclass(frozen=True)
class Difference:
    """A weight that the file holds with other values.

    Attributes:
        weight: its name, or those of the weights that are folded.
        relative: length of the difference over that of the weight; inf where the weight is zero.
        largest: the largest difference.
        held: the weight whose values are there in its place; empty if of none.
    """

    weight: str
    relative: float
    largest: float
    held: str = ""


@dataclass
class DenseComparison:
    """What the dense tensors of a file are.

    Attributes:
        equal: weights of the reference that the file has, whole or in part.
        wrong: weights that it has with other values.
        dtypes: of the tensors that are equal.
        strange: bytes of the tensors that are no weight of the reference, by name, or by number
            where they have none.
        sizes: of the strange tensors, how many values they have; without those of zeros.
    """

    equal: set[str] = field(default_factory=set)
    wrong: list[Difference] = field(default_factory=list)
    dtypes: set[str] = field(default_factory=set)
    strange: dict[str, int] = field(default_factory=dict)
    sizes: set[int] = field(default_factory=set)

    def may_hold(self, size: int) -> bool:
        """Whether a strange tensor may be made of a vector: it is in parts, added or repeated."""
        return any(not size % own or not own % size for own in self.sizes)


def compare(tensors: Iterable[DenseTensor], reference: DenseReference) -> DenseComparison:
    """Compare the dense tensors of a file with the reference, holding one of them at a time.

    A tensor that has the name and the size of a weight is that weight; others are looked up by
    their values. One that is like a weight which is nowhere else in the file is it, changed.

    Raises:
        DkmError: a tensor cannot be read.
    """
    matcher = _Matcher(reference)
    for number, tensor in enumerate(tensors):
        matcher.take(tensor, tensor.name or f"constant {number}")
    return matcher.result()


@dataclass(frozen=True)
class _Likeness:
    """A tensor that is like a weight, or like some weights folded, but not equal."""

    label: str
    size_bytes: int
    size: int
    sources: tuple[str, ...]
    difference: Difference


class _Matcher:
    """Holds what is known of a file's tensors so far."""

    def __init__(self, reference: DenseReference) -> None:
        self._reference = reference
        self._names = _by_spelling(reference.tensors)
        self._by_size: dict[int, list[str]] = defaultdict(list)
        for name, array in reference.tensors.items():
            self._by_size[array.size].append(name)
        self._gates = Gates(reference.tensors)
        self._alike: list[_Likeness] = []
        self._found = DenseComparison()

    def take(self, tensor: DenseTensor, label: str) -> None:
        """Find out what one tensor is."""
        stored = tensor.read().reshape(-1)
        name = self._names.get(_exported_name(tensor.name))
        sources = self._explain(stored)
        if name and self._size(name) == stored.size and name not in (sources or ()):
            self._found.wrong.append(self._difference(stored, name, ", ".join(sources or ())))
        elif sources is not None:
            self._found.equal.update(sources)
            self._found.dtypes.add(str(stored.dtype))
        else:
            self._describe_unexplained(stored, tensor, label)

    def result(self) -> DenseComparison:
        """What all tensors are, once the last one was taken."""
        found = self._found
        told = found.equal | {difference.weight for difference in found.wrong}
        for alike in self._alike:
            if told.issuperset(alike.sources):
                found.strange[alike.label] = alike.size_bytes
                found.sizes.add(alike.size)
            else:
                found.wrong.append(alike.difference)
        return found

    def _size(self, name: str) -> int:
        return self._reference.tensors[name].size

    def _explain(self, stored: Array) -> tuple[str, ...] | None:
        """The weights that a tensor is made of, or is each of, if it is."""
        equal = tuple(
            weight
            for weight in self._by_size[stored.size]
            if any(are_equal(stored, layout) for layout in layouts(self._reference.tensors[weight]))
        )
        if equal:  # several where their values are the same: exporters store those once
            return equal
        for form in folded_tensors(self._reference, stored.size):
            for values, operands in zip(layouts(form.values), layouts(form.operands), strict=True):
                if are_equal(stored, values, operands):
                    return form.sources
        gates = self._gates.made_of(stored)
        return self._part(stored) if gates is None else _sources(gates)

    def _part(self, stored: Array) -> tuple[str, ...] | None:
        """The weight of which a tensor holds rows, or columns."""
        if (stored == stored[:1]).all():
            return None  # such values are anywhere
        for name, array in self._reference.tensors.items():
            if stored.size >= array.size:
                continue
            for table in (array, array.T) if array.ndim == 2 else (array,):
                width = table[:1].size
                if stored.size % width == 0 and are_rows(
                    stored.reshape(-1, width), table.reshape(-1, width)
                ):
                    return (name,)
        return None

    def _difference(self, stored: Array, name: str, held: str) -> Difference:
        """How far a tensor is from a weight, in the form that fits best."""
        found = min(error_of(stored, v) for sources, v in self._similar(stored) if name in sources)
        return Difference(name, *found, held)

    def _describe_unexplained(self, stored: Array, tensor: DenseTensor, label: str) -> None:
        alike = [
            (*error_of(stored, values), sources)
            for sources, values in self._similar(stored)
            if is_like(stored, values)
            and not is_computed(stored, values)
            # Exporters multiply layers with constants of the program, and name what they get anew.
            and not (tensor.name and self._is_layer(sources) and is_multiple(stored, values))
        ]
        if alike:
            relative, largest, sources = min(alike)
            difference = Difference(" with ".join(sources[:2]), relative, largest)
            self._alike.append(
                _Likeness(label, tensor.size_bytes, stored.size, sources, difference)
            )
        elif stored.size > 1:
            self._found.strange[label] = tensor.size_bytes
            self._found.sizes.update({stored.size} if stored.any() else ())

    def _is_layer(self, sources: tuple[str, ...]) -> bool:
        """Whether the first of some weights belongs to a layer whose weight has no palette."""
        start = sources[0].rpartition(".")[0]
        weight = self._reference.tensors.get(f"{start}.weight")
        return weight is not None and weight.ndim > 1

    def _similar(self, stored: Array) -> Iterator[tuple[tuple[str, ...], Array]]:
        """All forms of weights that have the size of a tensor."""
        for name in self._by_size[stored.size]:
            for layout in layouts(self._reference.tensors[name]):
                yield (name,), layout
        for form in folded_tensors(self._reference, stored.size):
            yield form.sources, form.values
        for name, array in self._reference.tensors.items():
            if array.ndim < 2 or stored.size >= array.size:
                continue
            width = array[:1].size
            if width > 1 and stored.size % width == 0:
                rows = nearest_rows(stored.reshape(-1, width), array.reshape(-1, width))
                if rows is not None:
                    yield (name,), rows
        for gates in self._gates.like(stored):
            yield _sources(gates), np.concatenate([gate.values for gate in gates])


def _sources(gates: Iterable[Gate]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for gate in gates for name in gate.sources))


def _exported_name(name: str) -> str:
    """A name as torch.export and coremltools spell it: lower case letters, digits, underscores."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower())


def _by_spelling(names: Iterable[str]) -> dict[str, str]:
    """Weights by their spelling, where that tells one from another."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        found[_exported_name(name)].append(name)
    return {spelled: those[0] for spelled, those in found.items() if len(those) == 1}
