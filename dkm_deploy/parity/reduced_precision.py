"""Run a PyTorch model in coarser arithmetic than its own, to see what rounding alone changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from dkm_deploy.nn_utils.hooks import unfused_attention

Precision = Literal["float16", "float32"]

# Low bits of a float32 that rounding takes away. Of float32 itself the last three: libraries differ
# there by the order of sums, and by how they approximate exp, tanh and the like.
_DROPPED: Mapping[Precision, int] = {"float16": 13, "float32": 3}
_SMALLEST_NORMAL, _SUBNORMAL_STEP = 2.0**-14, 2.0**-24
_LARGEST, _FIRST_INFINITE = 65504.0, 65520.0
# Operations whose numbers a file stores rounded: factors, slopes, bounds, epsilons.
_SCALARS = (
    *("add", "sub", "rsub", "mul", "div", "clamp", "clamp_min", "clamp_max", "hardtanh"),
    *("leaky_relu", "elu", "celu", "softplus", "threshold", "hardshrink", "softshrink"),
    *("native_layer_norm", "native_group_norm", "_fused_rms_norm"),
    *("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"),
)
_MADE, _FROM_INPUTS, _DECODED = "_dkm_made", "_dkm_from_inputs", "_dkm_decoded"  # marks


# Off the grid of float32, so that what has saturated at 1 is rounded like all else: libraries give
# the number beside 1 there.
_ONE = 1 - 2.0**-24


def _gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    inner = 0.5**0.5 * x
    if approximate == "tanh":
        inner = (2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)
        return 0.5 * x * (_ONE + torch.tanh(inner))
    return 0.5 * x * (_ONE + torch.erf(inner))


def _log_softmax(x: Tensor, dim: int, _half_to_float: bool) -> Tensor:
    shifted = x - x.amax(dim, keepdim=True)
    return shifted - torch.log(_ONE * shifted.exp().sum(dim, keepdim=True))


def _log_sigmoid(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.log(_ONE * torch.sigmoid(x)), torch.empty_like(x)


def _group_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    samples: int,
    channels: int,
    _places: int,
    groups: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    parts = x.reshape(samples, groups, -1)
    mean = parts.mean(-1, keepdim=True)
    centred = parts - mean
    deviation = (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    found = (centred / deviation).reshape(x.shape)
    shape = (channels, *[1] * (x.ndim - 2))
    found = found if weight is None else found * weight.reshape(shape)
    found = found if bias is None else found + bias.reshape(shape)
    return found, mean, 1 / deviation


# Operations that subtract near numbers within, or round what many results share: rounding the
# result alone would not show what that loses, and files do it in operations of their own.
_IN_STEPS: Mapping[str, Callable[..., Any]] = {
    "gelu": _gelu,
    "native_group_norm": _group_norm,
    "_log_softmax": _log_softmax,
    "log_sigmoid_forward": _log_sigmoid,
}


@dataclass(frozen=True)
class Arithmetic:
    """In which numbers a file computes, and in which it stores its weights."""

    compute: Precision = "float32"
    weights: Precision = "float32"

    @property
    def coarsest(self) -> Precision:
        """The precision that most of its noise comes from."""
        return "float16" if "float16" in (self.compute, self.weights) else "float32"

    def __str__(self) -> str:
        if self.compute == self.weights:
            return self.compute
        return f"{self.compute} with {self.weights} weights"


def arithmetic(half: bool, half_weights: bool) -> Arithmetic:
    """The arithmetic of a file that computes in float16 or not, and stores weights so or not."""
    return Arithmetic(
        compute="float16" if half else "float32",
        weights="float16" if half or half_weights else "float32",
    )


def stochastic_round(
    values: Tensor, precision: Precision, draw: int, *, overflows: bool = False
) -> Tensor:
    """Values rounded up or down, by a rule that is another one in each ``draw``.

    Between two neighbours of ``precision`` lies one threshold, which ``draw`` chooses: what is
    above goes up, what is below goes down. So equal values are rounded equally and close ones
    alike, as rounding to nearest does, and over many draws the mean is the value itself. What
    ``precision`` has is left alone.

    Args:
        values: of a floating dtype; what is not finite stays.
        precision: see :class:`Arithmetic`.
        draw: which rule.
        overflows: whether what is beyond 65504, where float16 ends, becomes infinite. Else it has
            the digits of float16, so that only rounding is seen.
    """
    exact = values.detach().float().contiguous()
    low = (1 << _DROPPED[precision]) - 1
    bits = exact.view(torch.int32)
    up = bits + low - _thresholds(bits >> _DROPPED[precision], draw, low)
    found = up.bitwise_and_(~low).view(torch.float32)
    if precision == "float16":
        small = exact.abs() < _SMALLEST_NORMAL
        if bool(small.any()):
            steps = exact / _SUBNORMAL_STEP
            down = steps.floor()
            share = _thresholds(down.int(), draw, low) / float(low + 1)
            found = torch.where(small, (down + (steps - down > share)) * _SUBNORMAL_STEP, found)
    # The largest of float32, such as the fill of a mask, would be rounded up to infinity.
    found = torch.where(exact.isfinite() & found.isfinite(), found, exact)
    if precision == "float16" and overflows:
        found = found.clamp(-_LARGEST, _LARGEST)
        found = torch.where(exact.abs() < _FIRST_INFINITE, found, exact * torch.inf)
    return found.to(values.dtype)


def _thresholds(cells: Tensor, draw: int, most: int) -> Tensor:
    """A number from 0 to ``most`` for each cell and draw: a hash, so that cells share none."""
    mixed = cells * -1640531527 + (draw + 1) * 374761393
    mixed ^= mixed >> 15
    mixed *= -2048144777
    mixed ^= mixed >> 13
    return mixed.bitwise_and_(most)


class Rounding:
    """Rounds values to an arithmetic, and remembers whether some were beyond it.

    Attributes:
        overflown: whether a finite value was beyond the end of its precision.
    """

    def __init__(self, numbers: Arithmetic, draw: int, overflows: bool) -> None:
        self._numbers, self._draw, self._overflows = numbers, draw, overflows
        self.overflown = False

    def weight(self, tensor: Tensor) -> Tensor:
        """As a file stores it."""
        return self._round(tensor, self._numbers.weights)

    def result(self, tensor: Tensor) -> Tensor:
        """As a file computes it."""
        return self._round(tensor, self._numbers.compute)

    def _round(self, tensor: Tensor, precision: Precision) -> Tensor:
        found = stochastic_round(tensor, precision, self._draw, overflows=self._overflows)
        if precision == "float16" and not self.overflown and tensor.numel():
            least, most = torch.aminmax(tensor.detach())
            # Not below both limits: too large, infinite, or NaN.
            if not (most < _FIRST_INFINITE and least > -_FIRST_INFINITE):
                size = tensor.detach().abs()
                self.overflown = bool(((size >= _FIRST_INFINITE) & size.isfinite()).any())
        return found


@contextmanager
def emulate(
    numbers: Arithmetic, draw: int, inputs: Any, *, overflows: bool = False
) -> Iterator[Rounding]:
    """Run PyTorch within in another arithmetic; no tensor that exists before is changed.

    Every floating result that depends on ``inputs`` is rounded when it is made. Weights and other
    constants are rounded when they first meet such a result: what depends on weights alone is
    computed exactly before, as a converter folds it. LUTs and scales of palettes are rounded
    themselves.

    Args:
        numbers: to emulate.
        draw: see :func:`stochastic_round`.
        inputs: tensors, in any nesting, that the model is run on or that these are cut from.
        overflows: see :func:`stochastic_round`.

    Yields:
        What is known of the rounding afterwards.
    """
    rounding = Rounding(numbers, draw, overflows)
    leaves = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]
    with (
        torch.no_grad(),
        unfused_attention(),
        sdpa_kernel(SDPBackend.MATH),
        _without_mkldnn(),
        _RoundingMode(rounding, leaves),
    ):
        yield rounding


@contextmanager
def _without_mkldnn() -> Iterator[None]:
    """Without oneDNN, to which a whole LSTM is one operation."""
    flags: Any = torch.backends.mkldnn
    enabled = flags.enabled
    flags.enabled = False
    try:
        yield
    finally:
        flags.enabled = enabled


class _RoundingMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Rounds what operations take and make; see :func:`emulate`."""

    def __init__(self, rounding: Rounding, inputs: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._rounding = rounding
        self._inputs = {id(tensor): tensor for tensor in inputs}
        # By the id of a tensor, which is kept beside: no other one gets its id meanwhile.
        self._copies: dict[int, tuple[Tensor, Tensor]] = {}
        self._constants: dict[int, tuple[Tensor, Tensor]] = {}

    @classmethod
    def is_infra_mode(cls) -> bool:
        """Whether dynamo traces under it: where it does not, torch.cond is never exported again."""
        return True

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kind = _kind(func)
        given = (args, kwargs or {})
        tensors = [leaf for leaf in pytree.tree_leaves(given) if isinstance(leaf, Tensor)]
        from_inputs = any(self._depends(tensor) for tensor in tensors)
        decoded = kind.name == "lut_to_dense" or any(hasattr(t, _DECODED) for t in tensors)
        rounds = from_inputs or (decoded and not kind.views)
        written = {id(args[place]) for place in kind.written if place < len(args)}
        args, kwargs = pytree.tree_map_only(
            Tensor, lambda t: self._taken(t, kind, rounds and id(t) not in written), given
        )
        if from_inputs and kind.name == "div" and type(args[1]) in (int, float) and args[1]:
            args = (args[0], 1 / self._scalar(1 / args[1]), *args[2:])  # files multiply
        elif from_inputs and kind.name in _SCALARS:
            args = tuple(self._scalar(each) if type(each) is float else each for each in args)
        if from_inputs and kind.name in _IN_STEPS and not kind.written:
            with self:
                made = _IN_STEPS[kind.name](*args, **kwargs)
        else:
            made = func(*args, **kwargs)
        if from_inputs and not kind.views and not kind.written:
            made = pytree.tree_map_only(Tensor, self._result, made)
        for tensor in pytree.tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._note(tensor, kind, from_inputs=from_inputs, decoded=decoded)
        return made

    def _depends(self, tensor: Tensor) -> bool:
        """Whether a tensor depends on the inputs."""
        copy = self._copies.get(id(tensor), (tensor, tensor))[1]
        return id(tensor) in self._inputs or hasattr(copy, _FROM_INPUTS)

    def _taken(self, tensor: Tensor, kind: _Kind, rounds: bool) -> Tensor:
        """What an operation gets in place of a tensor."""
        shared = kind.views or bool(kind.written)
        if id(tensor) in self._copies:
            tensor = self._copies[id(tensor)][1]
        elif id(tensor) in self._inputs or (shared and not _is_ours(tensor)):
            tensor = self._copy(tensor)
        if not rounds or hasattr(tensor, _FROM_INPUTS) or not _rounds(tensor):
            return tensor
        if id(tensor) not in self._constants:
            found = self._rounding.weight(tensor)
            self._constants[id(tensor)] = (tensor, found)
        return self._constants[id(tensor)][1]

    def _copy(self, tensor: Tensor) -> Tensor:
        """A copy to write to and to take views of, for all later uses of ``tensor``."""
        if id(tensor) in self._inputs:
            copy = self._result(tensor) if _rounds(tensor) else tensor.clone()
            setattr(copy, _FROM_INPUTS, True)
        else:
            copy = tensor.detach().clone()
        setattr(copy, _MADE, True)
        self._copies[id(tensor)] = (tensor, copy)
        return copy

    def _result(self, tensor: Tensor) -> Tensor:
        if not _rounds(tensor):
            return tensor
        return self._rounding.result(tensor)

    def _note(self, tensor: Tensor, kind: _Kind, *, from_inputs: bool, decoded: bool) -> None:
        """Mark what was made, and with a view that was written to what it is a view of."""
        marked = [tensor]
        if kind.written and from_inputs:
            if _rounds(tensor):
                tensor.copy_(self._rounding.result(tensor))
            if tensor._base is not None:
                base = self._copies.get(id(tensor._base), (None, tensor._base))[1]
                marked += [base] if hasattr(base, _MADE) else []
        for each in marked:
            self._constants.pop(id(each), None)
            setattr(each, _MADE, True)
            if from_inputs:
                setattr(each, _FROM_INPUTS, True)
            elif decoded:
                setattr(each, _DECODED, True)

    def _scalar(self, value: float) -> float:
        found = float(self._rounding.weight(torch.tensor(value)))
        return found if found else value  # converters keep small numbers from zero


@dataclass(frozen=True)
class _Kind:
    """What an operation does with what it is given.

    Attributes:
        name: without namespace and without the underscore of an operation in place.
        views: whether its results share memory with what it takes.
        written: places of the arguments that it writes to.
    """

    name: str
    views: bool
    written: tuple[int, ...]


@cache
def _kind(func: Any) -> _Kind:
    schema = func._schema
    aliases = [argument.alias_info for argument in schema.arguments]
    written = tuple(n for n, alias in enumerate(aliases) if alias is not None and alias.is_write)
    views = not written and any(value.alias_info is not None for value in schema.returns)
    return _Kind(schema.name.split("::")[-1].rstrip("_"), views, written)


def _is_ours(tensor: Tensor) -> bool:
    """Whether nobody minds that a tensor is shared: parameters are not written to in forward."""
    return hasattr(tensor, _MADE) or isinstance(tensor, nn.Parameter)


def _rounds(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.numel() > 0
