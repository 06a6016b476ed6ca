"""LSTM, GRU and simple recurrent layers against torch's modules, or their formulas in numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from dkm_deploy.runtimes.mlprogram import runtime
from tests.formats.mlpackage.packages import mb, n, rand, save

STEPS, BATCH, SIZE, HIDDEN = 5, 3, 4, 6
X, H0, C0 = rand(STEPS, BATCH, SIZE), rand(BATCH, HIDDEN), rand(BATCH, HIDDEN)


def run(tmp_path, build, x=X):
    """The outputs of an operation that is built from x, in order."""

    def body(x):
        return tuple(mb.identity(x=y, name=f"y{i}") for i, y in enumerate(build(x)))

    path = save(tmp_path / "m.mlpackage", body, tuple(x.shape))
    outputs = runtime.load(path).run({"x": n(x)})
    return [torch.from_numpy(outputs[f"y{i}"]) for i in range(len(outputs))]


def check(actual, expected):
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=1e-5, atol=1e-6)


def ifoz(weight):
    """Core ML's order of the gates that torch has as i, f, z, o."""
    i, f, z, o = weight.detach().chunk(4)
    return n(torch.cat([i, f, o, z]))


def lstm_weights(module, suffix=""):
    return {
        "weight_ih": ifoz(getattr(module, f"weight_ih_l0{suffix}")),
        "weight_hh": ifoz(getattr(module, f"weight_hh_l0{suffix}")),
        "bias": ifoz(
            getattr(module, f"bias_ih_l0{suffix}") + getattr(module, f"bias_hh_l0{suffix}")
        ),
    }


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_lstm(tmp_path, direction, whole):
    torch.manual_seed(3)
    module = nn.LSTM(SIZE, HIDDEN)
    y, (h, c) = module(X if direction == "forward" else X.flip(0), (H0[None], C0[None]))
    weights = lstm_weights(module)
    actual = run(
        tmp_path,
        lambda x: mb.lstm(
            x=x,
            initial_h=n(H0),
            initial_c=n(C0),
            direction=direction,
            output_sequence=whole,
            **weights,
        ),
    )
    check(actual, [y if whole else y[-1:], h[0], c[0]])


@pytest.mark.parametrize("whole", [True, False])
def test_bidirectional_lstm(tmp_path, whole):
    torch.manual_seed(4)
    module = nn.LSTM(SIZE, HIDDEN, bidirectional=True)
    h0, c0 = rand(2, BATCH, HIDDEN), rand(2, BATCH, HIDDEN)
    y, (h, c) = module(X, (h0, c0))
    back = {f"{k}_back": v for k, v in lstm_weights(module, "_reverse").items()}
    actual = run(
        tmp_path,
        lambda x: mb.lstm(
            x=x,
            initial_h=n(torch.cat(list(h0), -1)),
            initial_c=n(torch.cat(list(c0), -1)),
            direction="bidirectional",
            output_sequence=whole,
            **lstm_weights(module),
            **back,
        ),
    )
    ends = [torch.cat(list(end), -1) for end in (h, c)]
    check(actual, [y if whole else ends[0][None], *ends])


def test_lstm_with_peepholes_clip_and_other_activations(tmp_path):
    w_ih, w_hh, bias, look = rand(4 * HIDDEN, SIZE), rand(4 * HIDDEN, HIDDEN), rand(24), rand(18)
    actual = run(
        tmp_path,
        lambda x: mb.lstm(
            x=x,
            initial_h=n(H0),
            initial_c=n(C0),
            weight_ih=n(w_ih),
            weight_hh=n(w_hh),
            bias=n(bias),
            peephole=n(look),
            recurrent_activation="hard_sigmoid",
            cell_activation="relu",
            activation="linear",
            clip=np.float32(0.7),
            output_sequence=True,
        ),
    )
    h, c, made = H0, C0, []
    for x in X:
        i, f, o, z = (x @ w_ih.T + h @ w_hh.T + bias).chunk(4, -1)
        p_i, p_f, p_o = look.chunk(3)
        i, f = (torch.clamp(0.2 * v + 0.5, 0, 1) for v in (i + c * p_i, f + c * p_f))
        c = (f * c + i * z.clamp(min=0)).clamp(-0.7, 0.7)
        h = torch.clamp(0.2 * (o + c * p_o) + 0.5, 0, 1) * c
        made.append(h)
    check(actual, [torch.stack(made), h, c])


def roz(weight):
    """Core ML's order of the gates that torch has as r, z, o."""
    r, z, o = weight.detach().chunk(3)
    return n(torch.cat([r, o, z]))


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_gru_with_the_reset_after_the_product_is_that_of_torch(tmp_path, direction):
    torch.manual_seed(5)
    module = nn.GRU(SIZE, HIDDEN)
    y, h = module(X if direction == "forward" else X.flip(0), H0[None])
    actual = run(
        tmp_path,
        lambda x: mb.gru(
            x=x,
            initial_h=n(H0),
            weight_ih=roz(module.weight_ih_l0),
            weight_hh=roz(module.weight_hh_l0),
            bias=roz(module.bias_hh_l0),
            input_bias=roz(module.bias_ih_l0),
            reset_after=True,
            direction=direction,
            output_sequence=True,
        ),
    )
    check(actual, [y, h[0]])


def test_gru_as_core_ml_defines_it(tmp_path):
    w_ih, w_hh, bias = rand(3 * HIDDEN, SIZE), rand(3 * HIDDEN, HIDDEN), rand(3 * HIDDEN)
    actual = run(
        tmp_path,
        lambda x: mb.gru(x=x, initial_h=n(H0), weight_ih=n(w_ih), weight_hh=n(w_hh), bias=n(bias)),
    )
    (r_x, o_x, z_x), (r_h, o_h, z_h) = w_ih.chunk(3), w_hh.chunk(3)
    r_b, o_b, z_b = bias.chunk(3)
    h = H0
    for x in X:
        r = torch.sigmoid(x @ r_x.T + h @ r_h.T + r_b)
        z = torch.sigmoid(x @ z_x.T + h @ z_h.T + z_b)
        o = torch.tanh(x @ o_x.T + (r * h) @ o_h.T + o_b)
        h = (1 - z) * o + z * h
    check(actual, [h[None], h])


@pytest.mark.parametrize(("direction", "activation"), [("forward", "tanh"), ("reverse", "relu")])
def test_rnn(tmp_path, direction, activation):
    torch.manual_seed(6)
    module = nn.RNN(SIZE, HIDDEN, nonlinearity=activation)
    y, h = module(X if direction == "forward" else X.flip(0), H0[None])
    actual = run(
        tmp_path,
        lambda x: mb.rnn(
            x=x,
            initial_h=n(H0),
            weight_ih=n(module.weight_ih_l0.detach()),
            weight_hh=n(module.weight_hh_l0.detach()),
            bias=n((module.bias_ih_l0 + module.bias_hh_l0).detach()),
            direction=direction,
            activation=activation,
            output_sequence=True,
        ),
    )
    check(actual, [y, h[0]])
