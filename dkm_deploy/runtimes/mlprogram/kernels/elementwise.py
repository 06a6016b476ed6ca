"""Elementwise operators of one and two inputs, casts and selection."""

from collections.abc import Callable

import torch
from torch import Tensor

from dkm_deploy.errors import DkmError
from dkm_deploy.runtimes.mlprogram.kernels.registry import kernel

_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "acos": torch.acos,
    "asin": torch.asin,
    "atan": torch.atan,
    "atanh": torch.atanh,
    "ceil": torch.ceil,
    "cos": torch.cos,
    "cosh": torch.cosh,
    "erf": torch.erf,
    "exp": torch.exp,
    "exp2": torch.exp2,
    "floor": torch.floor,
    "round": torch.round,
    "sign": torch.sign,
    "sin": torch.sin,
    "sinh": torch.sinh,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "tan": torch.tan,
    "tanh": torch.tanh,
}


def _quotient(x: Tensor, y: Tensor) -> Tensor:
    if x.is_floating_point() or y.is_floating_point():
        return torch.true_divide(x, y)
    if not y.all():
        raise DkmError("an integer is divided by 0")
    return x.double() / y.double()  # float32 does not hold all of int32


_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "equal": torch.eq,
    "floor_div": torch.floor_divide,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
    "mod": torch.remainder,
    "mul": torch.mul,
    "not_equal": torch.ne,
    "pow": torch.pow,
    "real_div": _quotient,
    "sub": torch.sub,
}

_CAST = {
    "fp16": torch.float32,  # rounded by the evaluator, like every fp16 value
    "fp32": torch.float32,
    "fp64": torch.float64,
    "bool": torch.bool,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "int16": torch.int16,
    "uint16": torch.int32,
    "int32": torch.int32,
    "int64": torch.int64,
}


def _register_unary(name: str, function: Callable[[Tensor], Tensor]) -> None:
    @kernel(name)
    def run(x: Tensor) -> Tensor:
        return function(x)


def _register_binary(name: str, function: Callable[[Tensor, Tensor], Tensor], exact: bool) -> None:
    @kernel(name, exact=exact)
    def run(x: Tensor, y: Tensor) -> Tensor:
        return function(x, y)


for _name, _function in _UNARY.items():
    _register_unary(_name, _function)
for _name, _both in _BINARY.items():
    _register_binary(_name, _both, exact=False)
_register_binary("maximum", torch.maximum, exact=True)
_register_binary("minimum", torch.minimum, exact=True)


@kernel("abs", exact=True)
def _abs(x: Tensor) -> Tensor:
    return x.abs()


@kernel("identity", exact=True)
def _identity(x: Tensor) -> Tensor:
    return x


@kernel("logical_not")
def _logical_not(x: Tensor) -> Tensor:
    return x.logical_not()


@kernel("clip", exact=True)
def _clip(x: Tensor, alpha: float, beta: float) -> Tensor:
    return torch.clamp(x, alpha, beta)


@kernel("threshold", exact=True)
def _threshold(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.maximum(x, alpha)


@kernel("inverse")
def _inverse(x: Tensor, epsilon: float = 1e-4) -> Tensor:
    return 1 / (x + epsilon)


@kernel("log")
def _log(x: Tensor, epsilon: float = 1e-45) -> Tensor:
    return torch.log(x + epsilon)


@kernel("rsqrt")
def _rsqrt(x: Tensor, epsilon: float = 1e-12) -> Tensor:
    return torch.rsqrt(x + epsilon)


@kernel("cast")
def _cast(x: Tensor, dtype: str) -> Tensor:
    if dtype not in _CAST:
        raise DkmError(f"cast to {dtype!r} is not supported; known: {', '.join(_CAST)}")
    return x.to(_CAST[dtype])


@kernel("select", exact=True)
def _select(cond: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(cond, a, b)
