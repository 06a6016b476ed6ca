"""What users give to public functions, checked where it comes in: one line says what is wrong."""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from dkm_deploy.errors import ArgumentError, DkmError

_P = ParamSpec("_P")
_T = TypeVar("_T")


def usage(example: str) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]:
    """Decorate a public function: an ArgumentError that leaves it shows ``example``, a right call.

    So does a call whose arguments do not fit its parameters. Where public functions call each
    other, it is that of the one that the user called.
    """

    def decorate(function: Callable[_P, _T]) -> Callable[_P, _T]:
        signature = inspect.signature(function)

        @wraps(function)
        def checked(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            try:
                _check_call(function.__name__, signature, *args, **kwargs)
                return function(*args, **kwargs)
            except ArgumentError as error:
                error.example = example
                raise

        return checked

    return decorate


def _check_call(name: str, signature: inspect.Signature, /, *args: Any, **kwargs: Any) -> None:
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise ArgumentError(f"{name}: {error}") from None


def names_of(value: Any, what: str) -> tuple[str, ...]:
    """Names; a lone str is one. Raises DkmError for what is no name."""
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, Iterable) or isinstance(names, (bytes, Mapping)):
        raise ArgumentError(f"{what} is {short(value)}; give a name or several")
    names = tuple(names)
    for name in names:
        if not isinstance(name, str):
            raise ArgumentError(f"{what}: a name is {short(name)}; give a str")
    return names


def integer(name: str, value: Any, low: int, high: int | None = None) -> int:
    """A whole number from ``low`` to ``high``, also numpy's. Raises DkmError for anything else."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise ArgumentError(f"{name} is {short(value)}; it must be an integer")
    if number < low or (high is not None and number > high):
        span = f"{low} to {high}" if high is not None else f"at least {low}"
        raise DkmError(f"{name} is {number}; it must be {span}")
    return number


def real(
    name: str,
    value: Any,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    most: float = math.inf,
) -> float:
    """A number within bounds, also numpy's; ``above`` is not within. Raises DkmError for others."""
    plain = value.item() if hasattr(value, "item") and not hasattr(value, "__len__") else value
    if isinstance(plain, bool) or not isinstance(plain, (int, float)) or not _is_number(plain):
        raise ArgumentError(f"{name} is {short(value)}; it must be a number")
    if not above < plain or not least <= plain <= most:
        low = f"above {above:g}" if above > -math.inf else f"at least {least:g}"
        high = "" if most == math.inf else f", at most {most:g}"
        raise DkmError(f"{name} is {plain:g}; it must be {low}{high}")
    return plain


def _is_number(value: float) -> bool:
    """Whether it is not NaN, and no integer that is too large for a float."""
    try:
        return not math.isnan(value)
    except OverflowError:
        return False


def truth(name: str, value: Any) -> bool:
    """True or false. Raises DkmError for anything else."""
    if not isinstance(value, bool):
        raise ArgumentError(f"{name} is {short(value)}; it must be true or false")
    return value


def function(name: str, value: _T) -> _T:
    """A function, or None. Raises DkmError for anything else, and for a class."""
    if isinstance(value, type) or not (value is None or callable(value)):
        raise ArgumentError(f"{name} is {short(value)}; it must be a function")
    return value


def record(name: str, value: Any, kind: type[_T]) -> _T:
    """A record of ``kind``. Raises DkmError for anything else."""
    if not isinstance(value, kind):
        where = "dkm" if kind.__module__.startswith("dkm_deploy.") else kind.__module__
        raise ArgumentError(f"{name} is {short(value)}; give a {where}.{kind.__name__}")
    return value


def check_implements(name: str, value: _T, attribute: str, known: Iterable[str]) -> _T:
    """An object that has ``attribute``. Raises DkmError, with the ``known`` names, for others."""
    if isinstance(value, type):
        raise ArgumentError(f"{name} is {short(value)}; give an instance, or its name")
    if not hasattr(value, attribute):
        raise ArgumentError(
            f"{name} is {short(value)}; give a record, or one of {', '.join(known)}"
        )
    return value


def short(value: object) -> str:
    """A value as Python writes it, in few characters and one line; else its type."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    line = " ".join(repr(value).split())
    return line if len(line) <= 60 else f"of type {type(value).__name__}"
