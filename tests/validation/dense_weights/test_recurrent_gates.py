"""Blocks of rows of recurrent layers, found in any order, side by side and added up."""

from __future__ import annotations

import numpy as np
import pytest

from dkm_deploy.validation.dense_weights.recurrent_gates import Gates

RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.normal(size=(8, 3)).astype(np.float32)
IH, HH = RANDOM.normal(size=(2, 8)).astype(np.float32)
LSTM = {
    "head.weight": RANDOM.normal(size=(8, 3)),
    "l.weight_ih_l0": WEIGHT,
    "l.bias_ih_l0": IH,
    "l.bias_hh_l0": HH,
}


def _told(gates):
    return None if gates is None else [(g.sources, g.number, g.count) for g in gates]


def test_gates_in_another_order():
    ifgo = WEIGHT.reshape(4, 6)
    assert _told(Gates(LSTM).made_of(ifgo[[0, 2, 3, 1]].reshape(-1))) == [
        (("l.weight_ih_l0",), number, 4) for number in (0, 2, 3, 1)
    ]


def test_the_longest_block_is_taken():
    assert _told(Gates(LSTM).made_of(WEIGHT.reshape(-1))) == [(("l.weight_ih_l0",), 0, 1)]
    stacked = np.concatenate([IH, HH]).astype(np.float16)
    assert _told(Gates(LSTM).made_of(stacked)) == [
        (("l.bias_ih_l0",), 0, 1),
        (("l.bias_hh_l0",), 0, 1),
    ]


def test_a_third_of_a_bias_that_begins_two_gates_in_order_is_not_taken_for_them():
    bias = np.arange(1, 97, dtype=np.float32)
    parts = bias.reshape(4, 24)[[0, 1, 3, 2]]
    assert _told(Gates({"l.bias_ih_l0": bias}).made_of(parts.reshape(-1))) == [
        (("l.bias_ih_l0",), number, 4) for number in (0, 1, 3, 2)
    ]


def test_biases_side_by_side_added_up_and_left_out():
    found = Gates(LSTM).made_of(np.concatenate([(IH + HH)[:2], np.zeros(2), HH[6:]]))
    both = ("l.bias_ih_l0", "l.bias_hh_l0")
    assert [(g.sources, g.number) for g in found] == [
        (both, 0),
        ((), 0),
        (("l.bias_hh_l0",), 3),
    ]
    assert [g.values.tolist() for g in found[:2]] == [(IH + HH)[:2].tolist(), [0, 0]]
    whole = Gates(LSTM).made_of(IH + HH)
    assert _told(whole) == [(both, 0, 1)]


@pytest.mark.parametrize(
    "stored",
    [
        np.zeros(8),
        np.zeros(0),
        np.r_[IH[:2], 5.0],
        np.r_[IH[:2], 5.0, 5.0],
        LSTM["head.weight"].reshape(-1),
        IH[:1],
        2 * WEIGHT.reshape(-1),
    ],
    ids=["zeros", "nothing", "a value too many", "others", "no gates", "half a gate", "twice"],
)
def test_what_is_no_gates(stored):
    assert Gates(LSTM).made_of(stored) is None


def test_three_gates_of_a_gru_and_one_of_an_rnn():
    bias = RANDOM.normal(size=6)
    found = Gates({"bias_hh_l1_reverse": bias}).made_of(np.roll(bias, 2))
    assert _told(found) == [(("bias_hh_l1_reverse",), number, 3) for number in (2, 0, 1)]
    one = Gates({"a.bias_ih": bias[:1]})
    assert _told(one.made_of(np.r_[0.0, bias[0]])) == [((), 0, 1), (("a.bias_ih",), 0, 1)]
    assert one.made_of(bias[:1]) is None  # a lone number may be anything


def test_biases_of_other_shapes_are_not_added_up():
    gates = Gates({"l.bias_ih_l0": IH, "l.bias_hh_l0": HH[:4]})
    assert _told(gates.made_of(IH)) == [(("l.bias_ih_l0",), 0, 1)]
    assert _told(Gates({"l.bias_ih_l0": IH}).made_of(IH)) == [(("l.bias_ih_l0",), 0, 1)]


def test_empty_weights_and_other_layers_are_passed_over():
    tensors = {"a.weight_ih_l0": np.zeros((0, 3)), "b.weight": IH, "x_weight_ih_l0": IH}
    assert Gates(tensors).made_of(IH) is None
    assert Gates(tensors | {"c.bias_hh_l0": IH}).made_of(IH) is not None


def test_the_nearest_gates_of_each_length():
    near = IH + np.float32(0.01)
    found = list(Gates({"l.bias_ih_l0": IH}).like(np.roll(near, 2)))
    assert sorted(len(gates) for gates in found) == [1, 4]
    four = next(gates for gates in found if len(gates) == 4)
    assert [gate.number for gate in four] == [3, 0, 1, 2]
    assert [len(gates) for gates in Gates({"l.bias_ih_l0": IH}).like(near[:6])] == [3]
    assert list(Gates({"l.bias_ih_l0": IH}).like(near[:7])) == []
    assert list(Gates({"l.bias_ih_l0": IH[:1]}).like(near)) == []


def test_the_nearest_gate_is_that_with_the_least_relative_difference():
    gates = Gates({"l.bias_ih_l0": np.array([10.0, 0, 1, 0, 50, 50])})
    ((nearest,),) = gates.like(np.array([3.0, 0]))
    assert nearest.number == 0  # off by 7 of 10, and from the next by 2 of 1
