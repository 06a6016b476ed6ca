"""What of a program is made float16, and which constants that costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from coremltools.converters.mil._deployment_compatibility import AvailableTarget

from converters.storage import names_in_short
from dkm_deploy.formats.mlpackage.proto import coremltools

_FACTORS = ("mul", "real_div")
_NORMS = ("batch_norm", "instance_norm", "layer_norm")
_MIXED_TYPES = AvailableTarget.iOS17
_BORNE = 0.01  # relative error of a factor; other programs stay as coremltools makes them
_LARGEST = float(np.finfo(np.float16).max)
_LEAST = float(np.nextafter(np.float16(0), np.float16(1)))


class Float16Choice:
    """Says of each operation whether it is computed in float16, and keeps what that costs.

    An operation that multiplies by a number which float16 rounds by more than 1 %, as it does
    those below some 3e-6, stays float32: ``x * 1e-8`` would be six times too large. So do copies
    of inputs and ``log(x + 1e-12)``, and from iOS 17 on, where they may be of another type than
    what is normalized, the parameters of a norm whose ``epsilon`` vanishes. Other numbers that
    keep a sum from zero have no such remedy, for what is computed from the sum is beyond float16
    too: coremltools puts float16's smallest number in their place, and they are told of.

    Attributes:
        lost: by the number that float16 rounds to zero, the operations it stood in.
        wide: operations that stay float32, for a value that they make or take is beyond float16.
    """

    def __init__(self, stays: Callable[[Any], bool], beyond: frozenset[str] = frozenset()) -> None:
        self._stays, self._beyond = stays, beyond
        self.lost: dict[float, list[str]] = {}
        self.wide: list[str] = []

    def __call__(self, operation: Any) -> bool:
        """Whether ``operation`` is computed in float16."""
        if self._stays(operation) or _copies_input(operation) or _is_guarded_log(operation):
            return False
        if self._beyond and not self._beyond.isdisjoint(_names(operation)):
            self.wide.append(f"{operation.op_type} {operation.name}")
            return False
        if _has_wide_parameters(operation):
            return True
        numbers = list(_numbers(operation))
        if operation.op_type in _FACTORS and any(map(_is_coarse, numbers)):
            return False
        for number in filter(_vanishes, numbers):
            self.lost.setdefault(number, []).append(operation.op_type)
        return True

    def precision(self) -> Any:
        """As coremltools takes it."""
        return coremltools().transform.FP16ComputePrecision(op_selector=self)

    def notes(self) -> Iterator[str]:
        """A line on what stays float32, and one on what was lost."""
        if self.wide:
            yield (
                f"{len(self.wide)} operations are computed in float32, for float16 cannot hold "
                f"their values: {names_in_short(self.wide)}"
            )
        if self.lost:
            told = [f"{n:.3g} ({', '.join(dict.fromkeys(ops))})" for n, ops in self.lost.items()]
            yield (
                f"{len(told)} constants are too small for float16 and are stored as {_LEAST:.3g}: "
                f"{names_in_short(told)}; compute_precision='float32' keeps them"
            )


@contextmanager
def kept_constants() -> Iterator[None]:
    """While the block runs, coremltools keeps what it would make of constants in float16.

    Parameters that would vanish stay float32, and what is finite stays so: the fill of a mask,
    ``torch.finfo(torch.float32).min``, becomes float16's lowest number, as it would be in PyTorch.
    """
    choice: Any = coremltools().transform.FP16ComputePrecision
    should_cast, check = choice.should_cast_parameter, choice._check_underflow_to_zero

    def should_cast_parameter(self: Any, operation: Any, name: str) -> bool:
        wide = name != "x" and _has_wide_parameters(operation)
        return not wide and bool(should_cast(self, operation, name))

    def check_range(self: Any, narrow: Any, var: Any) -> None:
        check(self, narrow, var)
        if narrow.val is not None and (np.isinf(narrow.val) & np.isfinite(var.val)).any():
            kept = np.clip(narrow.val, -_LARGEST, _LARGEST)
            finite = np.where(np.isinf(var.val), narrow.val, kept).astype(np.float16)
            narrow._sym_val.val = finite if finite.ndim else finite[()]

    choice.should_cast_parameter = should_cast_parameter
    choice._check_underflow_to_zero = check_range
    try:
        yield
    finally:
        choice.should_cast_parameter = should_cast
        choice._check_underflow_to_zero = check


def _has_wide_parameters(operation: Any) -> bool:
    """Whether an operation is a norm whose ``epsilon`` vanishes, and may have it in float32."""
    if operation.op_type not in _NORMS or operation.opset_version < _MIXED_TYPES:
        return False
    epsilon = operation.inputs.get("epsilon")
    return epsilon is not None and _vanishes(float(epsilon.val))


def _names(operation: Any) -> Iterator[str]:
    """Names of an operation, and of what it takes and makes."""
    yield operation.name
    given = [v for value in operation.inputs.values() for v in _listed(value)]
    for value in (*given, *operation.outputs):
        yield value.name
        if value.op is not None:
            yield value.op.name


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else (value,)


def _numbers(operation: Any) -> Iterator[float]:
    """The lone float32 numbers that an operation takes as constants."""
    for name, value in operation.inputs.items():
        known: Any = getattr(value, "val", None)
        if name == "epsilon" and operation.op_type in ("inverse", "log", "rsqrt"):
            continue  # coremltools keeps these
        if getattr(known, "dtype", None) == np.float32 and np.size(known) == 1:
            yield float(np.ravel(known)[0])


def _is_coarse(number: float) -> bool:
    narrow = float(np.float16(number))
    return math.isfinite(narrow) and abs(narrow - number) > _BORNE * abs(number)


def _vanishes(number: float) -> bool:
    return number != 0 and float(np.float16(number)) == 0


def _copies_input(operation: Any) -> bool:
    return bool(operation.op_type == "identity" and operation.x.op is None)


def _is_guarded_log(operation: Any) -> bool:
    """Whether it is a logarithm or the sum of which one is taken, with a number that vanishes."""
    total = operation.x.op if operation.op_type == "log" else operation
    if total is None or total.op_type not in ("add", "maximum"):
        return False
    users = total.outputs[0].child_ops
    return any(map(_vanishes, _numbers(total))) and {user.op_type for user in users} == {"log"}
