"""The forms in which a file may hold a dense weight: what exporters make of it beforehand.

Layouts hold the same values in another order: transposed, flattened, flipped. A folded form is
worked out from a normalization with running statistics, alone or with the layer before it, or is a
layer's weight times a factor: it is right within its rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dkm_deploy.validation.dense_weights.reference import DenseReference

Array = NDArray[Any]

_MOST_DIMENSIONS = 4  # whose every order is tried; of more, the given and the reversed one


@dataclass(frozen=True)
class FoldedTensor:
    """A tensor that is worked out from several weights.

    Attributes:
        sources: names of these.
        values: of the tensor.
        operands: of each value, how large what it is a sum of is: its rounding is relative to that.
    """

    sources: tuple[str, ...]
    values: Array
    operands: Array


def layouts(array: Array) -> Iterator[Array]:
    """The same values in every order of dimensions; of kernels also turned around.

    They are views without dimensions of length 1, to be compared flat.
    """
    squeezed = array.squeeze()
    count = squeezed.ndim
    given, back = tuple(range(count)), tuple(reversed(range(count)))
    orders = permutations(given) if count <= _MOST_DIMENSIONS else (given, back)
    for order in orders:
        yield squeezed.transpose(order)
    if count > 2:
        yield np.flip(squeezed, given[2:])


def folded_tensors(reference: DenseReference, size: int) -> Iterator[FoldedTensor]:
    """What folding makes of normalizations, and of layers and factors, of ``size`` values."""
    norms = [_Norm.of(reference, name) for name in reference.epsilons]
    for norm in norms:
        if norm.mean.size == size:
            yield from norm.alone()
    for name, weight in reference.tensors.items():
        if weight.size == size and weight.ndim > 1:
            for norm in norms:
                yield from norm.behind(name, weight)
            yield from _products(reference, name, weight)
        elif weight.shape == (size,):
            for norm in norms:
                if norm.mean.size == size and name not in norm.sources:
                    yield norm.shifted_bias(name, weight)


@dataclass(frozen=True)
class _Norm:
    """A normalization in float64: ``x * scale + shift`` for each channel."""

    sources: tuple[str, ...]
    mean: Array
    deviation: Array
    scale: Array
    bias: Array

    @classmethod
    def of(cls, reference: DenseReference, name: str) -> _Norm:
        start = f"{name}." if name else ""
        held = {key: array.astype(np.float64) for key, array in reference.of_norm(name).items()}
        deviation = np.sqrt(held["running_var"] + reference.epsilons[name])
        zeros = np.zeros_like(deviation)
        return cls(
            tuple(start + key for key in held),
            held.get("running_mean", zeros),
            deviation,
            held.get("weight", zeros + 1) / deviation,
            held.get("bias", zeros),
        )

    def alone(self) -> Iterator[FoldedTensor]:
        """Its own vectors."""
        product = self.mean * self.scale
        inverse = 1 / self.deviation
        for values, operands in (
            (self.scale, self.scale),
            (self.bias - product, np.abs(self.bias) + np.abs(product)),
            (self.deviation, self.deviation),
            (inverse, inverse),
            (self.deviation**2, self.deviation**2),
            (-self.mean, self.mean),
            (product, product),
            (self.mean / self.deviation, self.mean / self.deviation),
        ):
            yield FoldedTensor(self.sources, values, np.abs(operands))

    def behind(self, name: str, weight: Array) -> Iterator[FoldedTensor]:
        """The weight of the layer before it, its outputs along dimension 0 or, transposed, 1."""
        for axis in (0, 1):
            if weight.shape[axis] == self.scale.size:
                shape = [1] * weight.ndim
                shape[axis] = -1
                values = weight * self.scale.reshape(shape)
                yield FoldedTensor((name, *self.sources), values, np.abs(values))

    def shifted_bias(self, name: str, bias: Array) -> FoldedTensor:
        """The bias of the layer before it."""
        values = (bias - self.mean) * self.scale + self.bias
        operands = (np.abs(bias) + np.abs(self.mean)) * np.abs(self.scale) + np.abs(self.bias)
        return FoldedTensor((name, *self.sources), values, operands)


def _products(reference: DenseReference, name: str, weight: Array) -> Iterator[FoldedTensor]:
    """A layer's weight times a factor for all, or for each output."""
    for other, factor in reference.tensors.items():
        for axis in (0, 1):
            if factor.size in (1, weight.shape[axis]) and factor.size == max((1, *factor.shape)):
                shape = [1] * weight.ndim
                shape[axis] = -1
                values = weight * factor.reshape(shape)
                yield FoldedTensor((name, other), values, np.abs(values))
