"""One operation, ready to run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dkm_deploy.errors import DkmError
from dkm_deploy.runtimes.mlprogram.numerics import Finish, Overflow, Source
from dkm_deploy.runtimes.mlprogram.state import State

Value = Tensor | str | tuple[str, ...] | list[Tensor] | State
Values = dict[str, Value]
Act = Callable[[Values, list[Overflow]], None]

# What torch and Python raise when a program asks for what cannot be done.
_FAILURES = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError)


@dataclass(frozen=True)
class Argument:
    """Where a parameter gets its value from."""

    parameter: str
    names: tuple[str, ...]
    convert: Callable[[Any], Any] | None
    variadic: bool

    def take(self, values: Values) -> Any:
        """The argument, ready to be passed."""
        if self.variadic:
            return [values[name] for name in self.names]
        value = values[self.names[0]]
        return value if self.convert is None else self.convert(value)


@dataclass(frozen=True)
class KernelCall:
    """A call of an operator's implementation.

    Attributes:
        run: the implementation.
        fixed: arguments that never change.
        bound: the other arguments.
        finishes: what gives each output its type.
    """

    run: Callable[..., Any]
    fixed: Mapping[str, Any]
    bound: tuple[Argument, ...]
    finishes: tuple[Finish, ...]

    def __call__(self, values: Values, overflows: list[Overflow]) -> None:
        """Run, and put the outputs among ``values``."""
        changing = {argument.parameter: argument.take(values) for argument in self.bound}
        result = self.run(**self.fixed, **changing)
        results = result if isinstance(result, tuple) else (result,)
        for finish, value in zip(self.finishes, results, strict=True):
            values[finish.name] = finish(value, overflows)


@dataclass(frozen=True)
class ProgramStep:
    """One operation and the values that it takes and makes.

    Attributes:
        source: what to call it in messages.
        act: does it.
        takes: names of the values that it reads and that may change from run to run.
        makes: names of its outputs.
        last_use: values that no later step needs.
        varies: whether it may make other values in each run, whatever it takes.
    """

    source: Source
    act: Act
    takes: frozenset[str]
    makes: tuple[str, ...]
    last_use: tuple[str, ...] = ()
    varies: bool = False

    def __call__(self, values: Values, overflows: list[Overflow]) -> None:
        """Do it. Raises DkmError, with its name in front, if it fails."""
        with prefix_errors(self.source):
            self.act(values, overflows)


@contextmanager
def prefix_errors(source: Source) -> Iterator[None]:
    """Raise whatever goes wrong inside as a DkmError that says where."""
    try:
        yield
    except (ValueError, *_FAILURES) as error:  # DkmError is a ValueError
        raise DkmError(f"{source} failed: {error}") from error
