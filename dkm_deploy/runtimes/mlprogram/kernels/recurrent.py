"""LSTM, GRU and simple recurrent layers, one layer each. ``x`` is (sequence, batch, features).

With direction "reverse" a layer reads its input from the end, and its outputs stand in the order
in which they are made. The backward half of a bidirectional layer stands in the input's order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from dkm_deploy.errors import DkmError
from dkm_deploy.runtimes.mlprogram.kernels.registry import kernel

_Activation = Callable[[Tensor], Tensor]

_ACTIVATIONS: dict[str, _Activation] = {
    "tanh": torch.tanh,
    "scaled_tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": lambda x: (0.2 * x + 0.5).clamp(0, 1),
    "sigmoid_hard": lambda x: (0.2 * x + 0.5).clamp(0, 1),
    "relu": torch.relu,
    "linear": lambda x: x,
}


@dataclass(frozen=True)
class _Cell:
    """Weights and activations of one direction of an LSTM; gates in the order i, f, o, z."""

    weight_ih: Tensor
    weight_hh: Tensor
    bias: Tensor | None
    peephole: Tensor | None
    gate: str
    cell: str
    output: str
    clip: float | None

    @property
    def is_plain(self) -> bool:
        """Whether torch's own LSTM computes the same."""
        usual = (self.gate, self.cell, self.output) == ("sigmoid", "tanh", "tanh")
        return usual and self.peephole is None and self.clip is None


@kernel("lstm")
def _lstm(
    x: Tensor,
    initial_h: Tensor,
    initial_c: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    peephole: Tensor | None = None,
    weight_ih_back: Tensor | None = None,
    weight_hh_back: Tensor | None = None,
    bias_back: Tensor | None = None,
    peephole_back: Tensor | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    recurrent_activation: str = "sigmoid",
    cell_activation: str = "tanh",
    activation: str = "tanh",
    clip: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    rest = (recurrent_activation, cell_activation, activation, clip)
    ahead = _Cell(weight_ih, weight_hh, bias, peephole, *rest)
    if direction != "bidirectional":
        y, h, c = _lstm_pass(_order_gates(x, direction), initial_h, initial_c, ahead)
        return _sequence(y, output_sequence), h, c
    if weight_ih_back is None or weight_hh_back is None:
        raise DkmError("a bidirectional layer needs weight_ih_back and weight_hh_back")
    back = _Cell(weight_ih_back, weight_hh_back, bias_back, peephole_back, *rest)
    (h0, h1), (c0, c1) = initial_h.chunk(2, -1), initial_c.chunk(2, -1)
    y0, *ends0 = _lstm_pass(x, h0, c0, ahead)
    y1, *ends1 = _lstm_pass(x.flip(0), h1, c1, back)
    h, c = (torch.cat(pair, -1) for pair in zip(ends0, ends1, strict=True))
    y = torch.cat([y0, y1.flip(0)], -1) if output_sequence else h.unsqueeze(0)
    return y, h, c


def _lstm_pass(x: Tensor, h: Tensor, c: Tensor, cell: _Cell) -> tuple[Tensor, Tensor, Tensor]:
    if not cell.is_plain:
        return _lstm_loop(x, h, c, cell)
    weights = [_torch_order(cell.weight_ih), _torch_order(cell.weight_hh)]
    if cell.bias is not None:
        weights += [_torch_order(cell.bias), torch.zeros_like(cell.bias)]
    y, h, c = torch.lstm(
        x,
        (h.unsqueeze(0), c.unsqueeze(0)),
        weights,
        has_biases=cell.bias is not None,
        num_layers=1,
        dropout=0.0,
        train=False,
        bidirectional=False,
        batch_first=False,
    )
    return y, h.squeeze(0), c.squeeze(0)


def _torch_order(weight: Tensor) -> Tensor:
    i, f, o, z = weight.chunk(4)
    return torch.cat([i, f, z, o])


def _lstm_loop(x: Tensor, h: Tensor, c: Tensor, cell: _Cell) -> tuple[Tensor, Tensor, Tensor]:
    gate, inner, outer = (_activation(name) for name in (cell.gate, cell.cell, cell.output))
    size = cell.weight_hh.shape[1]
    look = x.new_zeros(3 * size) if cell.peephole is None else cell.peephole
    look_i, look_f, look_o = look.chunk(3)
    made = []
    for step in functional.linear(x, cell.weight_ih, cell.bias):
        i, f, o, z = (step + functional.linear(h, cell.weight_hh)).chunk(4, -1)
        c = gate(f + look_f * c) * c + gate(i + look_i * c) * inner(z)
        c = c if cell.clip is None else c.clamp(-cell.clip, cell.clip)
        h = gate(o + look_o * c) * outer(c)
        made.append(h)
    return torch.stack(made), h, c


@kernel("gru")
def _gru(
    x: Tensor,
    initial_h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    recurrent_activation: str = "sigmoid",
    activation: str = "tanh",
    reset_after: bool = False,
    input_bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    # Gates in the order reset, output, update.
    gate, outer = _activation(recurrent_activation), _activation(activation)
    zeros = x.new_zeros(weight_ih.shape[0])
    bias_r, bias_o, bias_z = (zeros if bias is None else bias).chunk(3)
    hidden_r, hidden_o, hidden_z = weight_hh.chunk(3)
    h, made = initial_h, []
    for step in functional.linear(_order_gates(x, direction), weight_ih, input_bias):
        given_r, given_o, given_z = step.chunk(3, -1)
        r = gate(given_r + functional.linear(h, hidden_r, bias_r))
        z = gate(given_z + functional.linear(h, hidden_z, bias_z))
        if reset_after:
            o = outer(given_o + r * functional.linear(h, hidden_o, bias_o))
        else:
            o = outer(given_o + functional.linear(r * h, hidden_o, bias_o))
        h = (1 - z) * o + z * h
        made.append(h)
    return _sequence(torch.stack(made), output_sequence), h


@kernel("rnn")
def _rnn(
    x: Tensor,
    initial_h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    activation: str = "tanh",
) -> tuple[Tensor, Tensor]:
    outer = _activation(activation)
    h, made = initial_h, []
    for step in functional.linear(_order_gates(x, direction), weight_ih, bias):
        h = outer(step + functional.linear(h, weight_hh))
        made.append(h)
    return _sequence(torch.stack(made), output_sequence), h


def _order_gates(x: Tensor, direction: str) -> Tensor:
    if direction not in ("forward", "reverse"):
        raise DkmError(f"direction {direction!r} is unknown")
    return x if direction == "forward" else x.flip(0)


def _sequence(y: Tensor, output_sequence: bool) -> Tensor:
    return y if output_sequence else y[-1:]


def _activation(name: str) -> _Activation:
    if name not in _ACTIVATIONS:
        raise DkmError(f"activation {name!r} is unknown; known: {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]
