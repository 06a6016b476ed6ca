"""In which numbers a program is computed, and what does not fit in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from dkm_deploy.errors import DkmError
from dkm_deploy.formats.mlpackage.ml_program import TensorType

Numerics = Literal["fp32", "range", "declared", "fp16"]
"""``fp32``: every float is kept in float32. ``range``: so it is, and what fp16 could not hold is
recorded. ``declared``: a value that the program declares as fp16 is rounded to fp16 when it is
made. ``fp16``: every float is, inputs and weights too, as on a device that computes in fp16
throughout."""

_SMALLEST = 2.0**-24
_FIRST_INFINITE = 65520.0  # rounds to infinity; the largest fp16 is 65504


@dataclass(frozen=True)
class Source:
    """Where a value comes from.

    Attributes:
        operation: name of the operation.
        type: its type, such as "conv"; "input" for an input of the program.
        layer: the weight that it reads, by qualified parameter name where the package says it,
            else by the name in the program; of an operation without a weight, that of the nearest
            one before it; None if there is none.
    """

    operation: str
    type: str
    layer: str | None

    def __str__(self) -> str:
        where = f", layer {self.layer!r}" if self.layer else ""
        return f"operation {self.type} ({self.operation!r}{where})"


@dataclass(frozen=True)
class Overflow:
    """Finite values that became infinite when a result was rounded to fp16.

    Attributes:
        operation: name of the operation that made the result.
        type: type of the operation, such as "conv".
        layer: see :class:`dkm_deploy.runtimes.mlprogram.numerics.Source`.
        output: name of the value.
        count: number of values that became infinite, without those that were infinite before.
        largest: largest magnitude among them; the largest number in fp16 is 65504.

    Example:
        >>> evaluator = dkm.MLProgramEvaluator("model.mlpackage")
        >>> outputs = evaluator.run({"input": np.full((1, 8), 1e5, np.float32)})
        >>> evaluator.overflows[0].count, evaluator.overflows[0].largest
        (8, 100000.0)
    """

    operation: str
    type: str
    layer: str | None
    output: str
    count: int
    largest: float

    def __str__(self) -> str:
        lost = f"{self.count} values, up to {self.largest:.3g} where fp16 ends at 65504"
        return f"{Source(self.operation, self.type, self.layer)}: {lost}"


@dataclass(frozen=True)
class Finish:
    """Gives one result its type.

    Attributes:
        source: what makes the value.
        name: of the value.
        kind: its declared type; None leaves it alone.
        rounds: whether floats are rounded to fp16.
        notes: whether those beyond fp16 are recorded though they are not rounded.
    """

    source: Source
    name: str
    kind: TensorType | None
    rounds: bool
    notes: bool

    def __call__(self, value: Tensor, overflows: list[Overflow]) -> Tensor:
        """The finished value; notes an overflow.

        Raises:
            DkmError: the shape is not the declared one, or fractions are declared to be integers.
        """
        if self.kind is None or not isinstance(value, Tensor):
            return value
        _check_shape(self.name, value, self.kind)
        if self.kind.dtype.name == "bool":
            return value.bool()
        if not self.kind.dtype.is_floating:
            return _whole(self.name, value)
        value = value.float()
        if (self.rounds or self.notes) and value.numel():
            least, most = torch.aminmax(value)
            # Not below both limits: too large, infinite, or NaN.
            if not (most < _FIRST_INFINITE and least > -_FIRST_INFINITE):
                self._note(value, overflows)
        return value.half().float() if self.rounds else value

    def _note(self, value: Tensor, overflows: list[Overflow]) -> None:
        sizes = value.abs()
        lost = sizes[(sizes >= _FIRST_INFINITE) & sizes.isfinite()]
        if lost.numel():
            made = self.source
            largest = float(lost.max())
            overflows.append(
                Overflow(made.operation, made.type, made.layer, self.name, lost.numel(), largest)
            )


def check_numerics(numerics: str) -> Numerics:
    """``numerics`` if it is a known one. Raises DkmError if not."""
    for known in get_args(Numerics):
        if numerics == known:
            mode: Numerics = known
            return mode
    raise DkmError(f"numerics is {numerics!r}; it must be one of {', '.join(get_args(Numerics))}")


def keep_from_zero(value: Tensor) -> Tensor:
    """What fp16 would round to zero becomes its smallest number.

    coremltools does so with single constants when it makes a program fp16, for the sake of the
    epsilons that keep divisions and logarithms finite.
    """
    vanishing = (value != 0) & (value.half() == 0)
    return torch.where(vanishing, value.sign() * _SMALLEST, value)


def rounds(kind: TensorType | None, numerics: Numerics) -> bool:
    """Whether a value of a declared type is rounded to fp16."""
    if numerics == "declared":
        return kind is not None and kind.dtype.name == "fp16"
    return numerics == "fp16"


def _whole(name: str, value: Tensor) -> Tensor:
    whole = value.int()
    if value.is_floating_point() and not torch.equal(whole.to(value.dtype), value):
        raise DkmError(f"{name!r} has fractions; how they become integers is not documented")
    return whole


def _check_shape(name: str, value: Tensor, kind: TensorType) -> None:
    if kind.any_rank:
        return
    if len(kind.shape) != value.ndim or any(
        want not in (None, have) for want, have in zip(kind.shape, value.shape, strict=True)
    ):
        raise DkmError(
            f"{name!r} has shape {tuple(value.shape)}; the program declares {kind.shape}"
        )
