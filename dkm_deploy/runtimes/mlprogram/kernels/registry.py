"""The register of operator implementations. The signature of an implementation is its schema.

A parameter is named like the operation's input and carries its default. Its annotation says what
it takes: ``Tensor`` a value; ``Tensors`` several; ``Items`` several, text among them; ``int``,
``float``, ``bool``, ``str``, ``Ints`` or ``Bools`` plain Python values, which are made once where
the program has a constant. A parameter called ``opset`` is no input: it is given the number of the
program's opset (6 for iOS 16, 7 for iOS 17, ..), by which some operations differ.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_args, get_type_hints

from torch import Tensor

Ints = tuple[int, ...]
Bools = tuple[bool, ...]
Tensors = list[Tensor]
Items = list[Tensor | str]

_Run = TypeVar("_Run", bound=Callable[..., Any])
Convert = Callable[[Any], Any]

_OPSET = "opset"


def _as_list(value: Tensor) -> tuple[Any, ...]:
    return tuple(value.reshape(-1).tolist())


_CONVERTERS: dict[Any, Convert] = {
    int: int,
    float: float,
    bool: bool,
    str: str,
    Ints: _as_list,
    Bools: _as_list,
}


@dataclass(frozen=True)
class Kernel:
    """An operator implementation.

    Attributes:
        run: called with keyword arguments; returns a tensor, or a tuple of them.
        converters: what to do to each argument, by parameter; None passes tensors as they are.
        required: parameters without a default.
        variadic: parameters that take several values.
        exact: every output value is an input value, so rounding it again is needless.
        varies: its result may be another one in each run, whatever it is given.
        ignored: inputs that the operation may have and that do not change its result.
        by_opset: whether it is given the opset's number too.
    """

    run: Callable[..., Any]
    converters: Mapping[str, Convert | None]
    required: frozenset[str]
    variadic: frozenset[str]
    exact: bool
    varies: bool
    ignored: frozenset[str]
    by_opset: bool


KERNELS: dict[str, Kernel] = {}


def kernel(
    *types: str, exact: bool = False, varies: bool = False, ignored: tuple[str, ...] = ()
) -> Callable[[_Run], _Run]:
    """Register the decorated function as the implementation of these operation types.

    Args:
        types: operation types.
        exact: see :class:`Kernel`.
        varies: see :class:`Kernel`.
        ignored: inputs of the operation that do not change its result.
    """

    def register(run: _Run) -> _Run:
        for name in types:
            KERNELS[name] = _kernel(run, exact, varies, frozenset(ignored))
        return run

    return register


def _kernel(run: Callable[..., Any], exact: bool, varies: bool, ignored: frozenset[str]) -> Kernel:
    hints = get_type_hints(run)
    hints.pop("return", None)
    by_opset = hints.pop(_OPSET, None) is not None
    parameters = [p for p in inspect.signature(run).parameters.values() if p.name != _OPSET]
    return Kernel(
        run,
        {name: _CONVERTERS.get(_without_none(hint)) for name, hint in hints.items()},
        frozenset(p.name for p in parameters if p.default is inspect.Parameter.empty),
        frozenset(name for name, hint in hints.items() if hint in (Tensors, Items)),
        exact,
        varies,
        ignored,
        by_opset,
    )


def _without_none(hint: Any) -> Any:
    if hint in _CONVERTERS or type(None) not in get_args(hint):
        return hint
    return next(part for part in get_args(hint) if part is not type(None))
