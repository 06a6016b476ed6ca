"""Lower ATen's ``lstm``, ``gru`` and ``rnn`` to Core ML's operations, one for each layer.

coremltools 9.0 lowers none of them from an exported program.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from coremltools.converters.mil import Builder
from coremltools.converters.mil.frontend.torch.ops import _get_inputs
from numpy.typing import NDArray

from converters.coreml.deployment import NO_PROJECTION
from converters.coreml.tables.row_blocks import in_order
from dkm_deploy.errors import DkmError

_LSTM = (0, 1, 3, 2)  # torch has input, forget, cell, output gates; Core ML has the cell's last
_GRU = (0, 2, 1)  # torch has reset, update, new; Core ML has reset, new, update


class RecurrentWeights:
    """Weights of a program under construction.

    Attributes:
        gru_resets_after: whether the deployment target's ``gru`` can do as PyTorch does.
    """

    gru_resets_after: bool

    def in_order(self, variable: Any, order: tuple[int, ...]) -> Any:
        """A weight with the blocks of its rows in another order."""
        return in_order(variable.val, order)


@dataclass(frozen=True)
class _Cell:
    """The weights of one layer in one direction, as PyTorch has them; biases are zero if absent."""

    weight_ih: Any
    weight_hh: Any
    bias_ih: NDArray[Any]
    bias_hh: NDArray[Any]


@dataclass(frozen=True)
class _RecurrentCall:
    """The arguments of ``aten.lstm.input``, ``aten.gru.input`` or one of ``aten.rnn_*``.

    Attributes:
        x: ``(steps, batch, inputs)``.
        layers: the cells of each layer, one or two directions.
        batch_first: whether ``x`` was ``(batch, steps, inputs)``, and the output must be.
    """

    x: Any
    states: list[Any]
    layers: list[list[_Cell]]
    batch_first: bool


_Direction = Callable[[Any, Any, _Cell], tuple[Any, Any]]
"""One direction of one layer of inputs, first state and weights: all steps, and the last state."""


def lstm(context: Any, node: Any, weights: RecurrentWeights) -> None:
    """Lower ``aten.lstm.input``."""
    call = _call(context, node)
    x, ends = call.x, []
    for layer, cells in enumerate(call.layers):
        initial_h, initial_c = (_initial(state, layer, len(cells)) for state in call.states)
        x, *last = Builder.lstm(
            x=x,
            initial_h=initial_h,
            initial_c=initial_c,
            direction="forward" if len(cells) == 1 else "bidirectional",
            output_sequence=True,
            **_gates(cells[0], _LSTM, weights),
            **{f"{key}_back": w for c in cells[1:] for key, w in _gates(c, _LSTM, weights).items()},
        )
        ends.append([_final(state, len(cells)) for state in last])
    _finish(context, node, call, x, [list(state) for state in zip(*ends, strict=True)])


def gru(context: Any, node: Any, weights: RecurrentWeights) -> None:
    """Lower ``aten.gru.input``, a direction at a time.

    PyTorch resets after the recurrent product and has two biases. Core ML's ``gru`` can from iOS
    18 on; before, it resets first, which no choice of weights makes up for, and a layer is a loop.
    """
    operation = partial(_gru_operation, weights=weights)
    _by_direction(context, node, operation if weights.gru_resets_after else _gru_loop)


def rnn(context: Any, node: Any, activation: str) -> None:
    """Lower ``aten.rnn_tanh.input`` or ``aten.rnn_relu.input``, a direction at a time."""
    _by_direction(context, node, partial(_rnn_operation, activation=activation))


def _by_direction(context: Any, node: Any, one: _Direction) -> None:
    """Lower a layer with one kind of state by ``one`` for each direction of each layer."""
    call = _call(context, node)
    (state,) = call.states
    x, ends = call.x, []
    for layer, cells in enumerate(call.layers):
        outputs = []
        for back, cell in enumerate(cells):
            initial = _initial(state, len(cells) * layer + back, 1)
            steps, last = one(Builder.reverse(x=x, axes=[0]) if back else x, initial, cell)
            outputs.append(Builder.reverse(x=steps, axes=[0]) if back else steps)
            ends.append(_final(last, 1))
        x = outputs[0] if len(outputs) == 1 else Builder.concat(values=outputs, axis=2)
    _finish(context, node, call, x, [ends])


def _rnn_operation(x: Any, initial: Any, cell: _Cell, activation: str) -> tuple[Any, Any]:
    steps, last = Builder.rnn(
        x=x,
        initial_h=initial,
        weight_ih=cell.weight_ih,
        weight_hh=cell.weight_hh,
        bias=cell.bias_ih + cell.bias_hh,
        activation=activation,
        output_sequence=True,
    )
    return steps, last


def _gru_operation(x: Any, initial: Any, cell: _Cell, weights: RecurrentWeights) -> tuple[Any, Any]:
    steps, last = Builder.gru(
        x=x,
        initial_h=initial,
        weight_ih=weights.in_order(cell.weight_ih, _GRU),
        weight_hh=weights.in_order(cell.weight_hh, _GRU),
        input_bias=in_order(cell.bias_ih, _GRU),
        bias=in_order(cell.bias_hh, _GRU),
        reset_after=True,
        output_sequence=True,
    )
    return steps, last


def _gru_loop(x: Any, initial: Any, cell: _Cell) -> tuple[Any, Any]:
    """The same as a loop, with each weight whole and the inputs' part outside of it."""
    gates = Builder.linear(x=x, weight=cell.weight_ih, bias=cell.bias_ih)
    steps = Builder.slice_by_index(x=Builder.shape(x=gates), begin=[0], end=[1])

    def step(i: Any, h: Any, outputs: Any) -> tuple[Any, Any, Any]:
        inputs = Builder.split(x=Builder.gather(x=gates, indices=i, axis=0), num_splits=3, axis=-1)
        hidden = Builder.linear(x=h, weight=cell.weight_hh, bias=cell.bias_hh)
        states = Builder.split(x=hidden, num_splits=3, axis=-1)
        reset, update = (Builder.sigmoid(x=Builder.add(x=inputs[k], y=states[k])) for k in (0, 1))
        new = Builder.tanh(x=Builder.add(x=inputs[2], y=Builder.mul(x=reset, y=states[2])))
        h = Builder.add(x=new, y=Builder.mul(x=update, y=Builder.sub(x=h, y=new)))
        return (
            Builder.add(x=i, y=1),
            h,
            Builder.scatter(data=outputs, indices=i, updates=h, axis=0, mode="update"),
        )

    room = Builder.split(x=gates, num_splits=3, axis=-1)[0]  # every step overwrites its row
    start = ([0], Builder.expand_dims(x=initial, axes=[0]), room)
    _, last, outputs = Builder.while_loop(
        _cond=lambda i, _h, _outputs: Builder.less(x=i, y=steps), _body=step, loop_vars=start
    )
    return outputs, Builder.squeeze(x=last, axes=[0])


def _call(context: Any, node: Any) -> _RecurrentCall:
    x, states, parameters, _, layers, _, _, both, batch_first = _get_inputs(
        context, node, expected=9
    )
    states = list(states) if isinstance(states, (list, tuple)) else [states]
    count = int(layers.val) * (2 if both.val else 1)
    each = len(parameters) // count
    if each not in (2, 4):
        raise DkmError(NO_PROJECTION)
    flat = [_cell(parameters[i * each : (i + 1) * each]) for i in range(count)]
    per_layer = count // int(layers.val)
    cells = [flat[i : i + per_layer] for i in range(0, count, per_layer)]
    first = bool(batch_first.val)
    return _RecurrentCall(_swap_first_dims(x) if first else x, states, cells, first)


def _cell(parameters: list[Any]) -> _Cell:
    weight_ih, weight_hh, *biases = parameters
    values = [bias.val for bias in biases] or [np.zeros(weight_hh.shape[0], np.float32)] * 2
    return _Cell(weight_ih, weight_hh, *values)


def _gates(cell: _Cell, order: tuple[int, ...], weights: RecurrentWeights) -> dict[str, Any]:
    return {
        "weight_ih": weights.in_order(cell.weight_ih, order),
        "weight_hh": weights.in_order(cell.weight_hh, order),
        "bias": in_order(cell.bias_ih + cell.bias_hh, order),
    }


def _initial(state: Any, first: int, directions: int) -> Any:
    """States of ``(states, batch, hidden)`` from ``first`` on, side by side as Core ML has them."""
    if state.shape[0] != directions:
        end = [first + directions, 0, 0]
        mask = [False, True, True]
        state = Builder.slice_by_index(x=state, begin=[first, 0, 0], end=end, end_mask=mask)
    if directions == 1:
        return Builder.squeeze(x=state, axes=[0])
    return Builder.reshape(x=_swap_first_dims(state), shape=[-1, directions * state.shape[2]])


def _final(state: Any, directions: int) -> Any:
    """States side by side as ``(states, batch, hidden)``."""
    if directions == 1:
        return Builder.expand_dims(x=state, axes=[0])
    return _swap_first_dims(
        Builder.reshape(x=state, shape=[-1, directions, state.shape[1] // directions])
    )


def _swap_first_dims(x: Any) -> Any:
    return Builder.transpose(x=x, perm=[1, 0, 2])


def _finish(context: Any, node: Any, call: _RecurrentCall, x: Any, ends: list[list[Any]]) -> None:
    """Give the outputs of a node: all steps, then the last states of all layers, kind by kind."""
    states = [kind[0] if len(kind) == 1 else Builder.concat(values=kind, axis=0) for kind in ends]
    context.add((_swap_first_dims(x) if call.batch_first else x, *states), torch_name=node.name)
