"""Complex numbers as pairs of real ones: Core ML has no others."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node
from torch.fx.node import map_aggregate

from converters.coreml.decompositions.fourier import to_real, transform
from converters.coreml.decompositions.graph_writer import GraphWriter
from dkm_deploy.conversion.failed_operation import layer_of
from dkm_deploy.errors import DkmError

_aten = torch.ops.aten
_ASSERT = _aten._assert_tensor_metadata.default


@dataclass(frozen=True)
class Pair:
    """A complex value.

    Attributes:
        real: its real part.
        imag: its imaginary part.
    """

    real: Any
    imag: Any


def has_complex(program: ExportedProgram) -> bool:
    """Whether any value of a program is complex."""
    return any(map(_is_complex, program.graph.nodes))


def complex_as_pairs(program: ExportedProgram) -> ExportedProgram:
    """Put real calls in the place of those that take or give complex values, in place.

    Raises:
        DkmError: a call has no such form, or an input or output is complex.
    """
    graph, pairs = program.graph, dict[Node, Pair]()
    for node in graph.find_nodes(op="call_function", target=_ASSERT):
        graph.erase_node(node)
    first = next(node for node in graph.nodes if node.op == "call_function")
    for node in [n for n in graph.nodes if n.op == "placeholder" and _is_complex(n)]:
        pairs[node] = _held_pair(program, node, first)
    for node in list(graph.nodes):
        if node.op == "call_function" and any(map(_is_complex, (node, *node.all_input_nodes))):
            args, kwargs = _with_pairs((node.args, node.kwargs), pairs)
            found = _rule(node)(GraphWriter(program, node), *args, **kwargs)
            if isinstance(found, Pair):
                pairs[node] = found
            else:
                node.replace_all_uses_with(found)
    for node in reversed(list(graph.nodes)):
        takes = any(map(_is_complex, (node, *node.all_input_nodes)))
        if node.op == "call_function" and takes and not node.users:
            graph.erase_node(node)
    _drop_placeholders(program, set(pairs))
    program.graph_module.recompile()
    return program


def _is_complex(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_complex()


def _with_pairs(given: Any, pairs: Mapping[Node, Pair]) -> Any:
    """Arguments with pairs in the place of complex values."""

    def pair(arg: Any) -> Any:
        return pairs.get(arg, arg) if isinstance(arg, Node) else arg

    return map_aggregate(given, pair)


def _rule(node: Node) -> Callable[..., Any]:
    if node.target not in _RULES:
        maker = node
        if node.target is operator.getitem and isinstance(node.args[0], Node):
            maker = node.args[0]
        place = f" (at {maker.target} in layer {layer_of(maker) or 'the model'})"
        raise DkmError(f"Core ML has no complex numbers, and no other form is known{place}")
    return _RULES[node.target]


def _held_pair(program: ExportedProgram, node: Node, first: Node) -> Pair:
    """Both parts of a complex tensor that the program holds. Raises DkmError for an input."""
    signature = program.graph_signature
    names = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    if node.name not in names:
        raise DkmError(
            f"input {node.name!r} is complex, which Core ML lacks; give view_as_real of it"
        )
    held = {**program.state_dict, **program.constants}[names[node.name]].detach()
    writer = GraphWriter(program, first)
    return Pair(writer.constant(held.real), writer.constant(held.imag))


def _drop_placeholders(program: ExportedProgram, complex_nodes: set[Node]) -> None:
    dropped = {n.name for n in complex_nodes if n.op == "placeholder"}
    for node in [n for n in complex_nodes if n.op == "placeholder"]:
        program.graph.erase_node(node)
    specs = program.graph_signature.input_specs
    specs[:] = [spec for spec in specs if spec.arg.name not in dropped]


def _each(call: Any, w: GraphWriter, *args: Any, **kwargs: Any) -> Pair:
    """What moves values moves both parts alike."""

    def part(name: str) -> Node:
        given = map_aggregate(args, lambda a: getattr(a, name) if isinstance(a, Pair) else a)
        return w.call(call, *given, **kwargs)

    return Pair(part("real"), part("imag"))


def _add(call: Any, w: GraphWriter, x: Any, y: Any, **kwargs: Any) -> Pair:
    """A sum or difference, of which one may be real."""
    x, y = _pair(w, x), _pair(w, y)
    return Pair(w.call(call, x.real, y.real, **kwargs), w.call(call, x.imag, y.imag, **kwargs))


def _pair(w: GraphWriter, x: Any) -> Pair:
    if isinstance(x, Pair):
        return x
    if isinstance(x, complex):
        return Pair(x.real, x.imag)
    return Pair(x, w.call(_aten.zeros_like.default, x) if isinstance(x, Node) else 0.0)


def _product(of_reals: Callable[..., Any], w: GraphWriter, x: Any, y: Any) -> Pair:
    """``(a + bi) (c + di) = ac - bd + (ad + bc) i``, of any product that is linear in both."""
    if not isinstance(x, Pair):
        return Pair(of_reals(w, x, y.real), of_reals(w, x, y.imag))
    if not isinstance(y, (Pair, complex)):
        return Pair(of_reals(w, x.real, y), of_reals(w, x.imag, y))
    y = _pair(w, y)
    return Pair(
        w.sub(of_reals(w, x.real, y.real), of_reals(w, x.imag, y.imag)),
        w.add(of_reals(w, x.real, y.imag), of_reals(w, x.imag, y.real)),
    )


def _times(w: GraphWriter, x: Any, y: Any) -> Pair:
    return _product(lambda w, a, b: w.mul(a, b), w, x, y)


def _by(call: Any) -> Callable[..., Pair]:
    return partial(_product, lambda w, a, b: w.call(call, a, b))


def _einsum(w: GraphWriter, equation: str, operands: Any, **_: Any) -> Any:
    if len(operands) != 2:
        raise DkmError("Core ML has no complex numbers, and einsum of them is of two tensors here")
    return _product(lambda w, a, b: w.call(_aten.einsum.default, equation, [a, b]), w, *operands)


def _divide(w: GraphWriter, x: Any, y: Any) -> Pair:
    if not isinstance(y, Pair):
        return _each(_aten.div.Tensor, w, x, y)
    product, square = _times(w, x, _conjugate(w, y)), _square(w, y)
    return _each(_aten.div.Tensor, w, product, square)


def _square(w: GraphWriter, x: Pair) -> Node:
    return w.add(w.mul(x.real, x.real), w.mul(x.imag, x.imag))


def _absolute(w: GraphWriter, x: Pair) -> Node:
    return w.call(_aten.sqrt.default, _square(w, x))


def _conjugate(w: GraphWriter, x: Pair) -> Pair:
    return Pair(x.real, w.call(_aten.neg.default, x.imag))


def _polar(w: GraphWriter, size: Any, angle: Any) -> Pair:
    cos, sin = (w.call(call, angle) for call in (_aten.cos.default, _aten.sin.default))
    return Pair(w.mul(size, cos), w.mul(size, sin))


def _exponential(w: GraphWriter, x: Pair) -> Pair:
    return _polar(w, w.call(_aten.exp.default, x.real), x.imag)


def _power(w: GraphWriter, x: Pair, exponent: Any) -> Pair:
    if exponent != 2:
        raise DkmError("Core ML has no complex numbers, and only their squares are known here")
    return _times(w, x, x)


def _from_last(w: GraphWriter, x: Node) -> Pair:
    return Pair(*(w.call(_aten.select.int, x, -1, place) for place in (0, 1)))


def _to_last(w: GraphWriter, x: Pair) -> Node:
    return w.call(_aten.stack.default, [x.real, x.imag], -1)


def _of_real(w: GraphWriter, x: Any, *_: Any, **__: Any) -> Any:
    """A copy in another type: a real one becomes complex."""
    if isinstance(x, Pair):
        return x
    return _pair(w, w.call(_aten._to_copy.default, x, dtype=torch.float32))


def _same(_: GraphWriter, x: Any, *__: Any) -> Any:
    return x


def _made(call: Any, w: GraphWriter, *args: Any, **kwargs: Any) -> Pair:
    """Zeros of a complex type."""
    kwargs = {**kwargs, "dtype": torch.float32}
    args = tuple(a.real if isinstance(a, Pair) else a for a in args)
    return Pair(w.call(call, *args, **kwargs), w.call(call, *args, **kwargs))


def _transform(w: GraphWriter, x: Any, dims: Any, norm: int, forward: bool) -> Pair:
    pair = _pair(w, x)
    return Pair(*transform(w, pair.real, pair.imag, dims, norm, forward=forward))


def _from_real(w: GraphWriter, x: Node, dims: Any, norm: int, onesided: bool) -> Pair:
    real, imag = transform(w, x, None, dims, norm, forward=True)
    if not onesided:
        return Pair(real, imag)
    half = x.meta["val"].shape[dims[-1]] // 2 + 1
    return _each(_aten.slice.Tensor, w, Pair(real, imag), dims[-1], 0, half)


_MOVES = (
    *(_aten.view.default, _aten.reshape.default, _aten._unsafe_view.default, _aten.permute.default),
    *(_aten.transpose.int, _aten.slice.Tensor, _aten.select.int, _aten.cat.default),
    *(_aten.stack.default, _aten.unsqueeze.default, _aten.squeeze.dim, _aten.squeeze.dims),
    *(_aten.expand.default, _aten.clone.default, _aten.flip.default, _aten.roll.default),
    *(_aten.flatten.using_ints, _aten.narrow.default, _aten.movedim.int, _aten.repeat.default),
    *(_aten.constant_pad_nd.default, _aten.pad.default, _aten.index.Tensor, _aten.alias.default),
    *(_aten.sum.dim_IntList, _aten.mean.dim, _aten.neg.default, _aten.index_select.default),
    *(_aten.slice_scatter.default, _aten.select_scatter.default, _aten.unflatten.int),
    *(_aten.contiguous.default, _aten.t.default, _aten.copy.default, _aten.lift_fresh_copy.default),
)
_SAME = (_aten.resolve_conj.default, _aten.resolve_neg.default, _aten.detach.default)
_RULES: dict[Any, Callable[..., Any]] = {
    **{call: partial(_each, call) for call in _MOVES},
    **dict.fromkeys(_SAME, _same),
    **{call: partial(_add, call) for call in (_aten.add.Tensor, _aten.sub.Tensor)},
    **{call: _by(call) for call in (_aten.bmm.default, _aten.mm.default, _aten.matmul.default)},
    **dict.fromkeys((_aten.mul.Tensor, _aten.mul.Scalar), _times),
    **dict.fromkeys((_aten.div.Tensor, _aten.div.Scalar), _divide),
    **{
        call: partial(_made, call)
        for call in (
            *(_aten.zeros.default, _aten.zeros_like.default, _aten.new_zeros.default),
            *(_aten.full.default, _aten.full_like.default, _aten.empty.memory_format),
        )
    },
    **dict.fromkeys((_aten._conj.default, _aten.conj_physical.default), _conjugate),
    _aten.conj.default: _conjugate,
    _aten.abs.default: _absolute,
    _aten.exp.default: _exponential,
    _aten.pow.Tensor_Scalar: _power,
    _aten.einsum.default: _einsum,
    _aten.real.default: lambda _, x: x.real,
    _aten.imag.default: lambda _, x: x.imag,
    _aten.complex.default: lambda _, real, imag: Pair(real, imag),
    _aten.polar.default: _polar,
    _aten.view_as_complex.default: _from_last,
    _aten.view_as_real.default: _to_last,
    _aten._to_copy.default: _of_real,
    _aten.to.dtype: _of_real,
    _aten._fft_c2c.default: _transform,
    _aten._fft_r2c.default: _from_real,
    _aten._fft_c2r.default: lambda w, x, dims, norm, length: to_real(
        w, x.real, x.imag, dims, norm, length
    ),
}
