"""Where a file first leaves PyTorch's values, found from values alone and told in words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.runtimes import Tap
from dkm_deploy.validation.locate import locate
from dkm_deploy.validation.locate.locate import Divergence, describe_divergence

DEFAULTS = {"layer": "c", "value": "v", "relative": 0.25, "limit": 1e-3, "seen": 3, "layers": 4}
COUNTS = "(3 of 4 layers can be compared)"


def _divergence(at, **changes):
    return Divergence(at=at, **DEFAULTS | changes)


@pytest.mark.parametrize(
    ("at", "words"),
    [
        (
            "output",
            f"first error in c: relative error 2.50e-01 at 'v', its input is right {COUNTS}",
        ),
        (
            "input",
            "first error before c, after the layers in front of it: relative error 2.50e-01 at 'v' "
            + COUNTS,
        ),
        (
            "inputs",
            "first error before c, the first layer: relative error 2.50e-01 at 'v'; inputs are "
            "prepared in another way, such as another scale or order of channels " + COUNTS,
        ),
        (
            "after",
            "no layer differs by more than 1.00e-03: it is after c, or in single elements "
            + COUNTS,
        ),
    ],
)
def test_a_place_in_words(at, words):
    assert describe_divergence(_divergence(at)) == words


def test_an_overflow_and_layers_that_cannot_be_seen_are_told():
    assert (
        ": relative error inf at 'v', where fp16 overflows first in op, its input"
        in describe_divergence(_divergence("output", relative=np.inf, overflow="op"))
    )
    for names, words in (("xyz", "x, y, z cannot"), ("xyzuv", "x, y, z, 2 more cannot")):
        found = describe_divergence(_divergence("input", unseen=tuple(names)))
        assert found.endswith(f"(3 of 4 layers can be compared; {words})")


class _Dump:
    def __init__(self, values, lost):
        self.input_shapes, self.values, self._lost = {"x": (None, 4)}, values, lost

    def run(self, inputs):
        return {name: change(inputs["x"]) for name, change in self.values.items()}

    def overflow_text(self):
        return self._lost


class _Probe:
    """A file whose values at its taps are functions of its input."""

    def __init__(self, taps, values, lost=None):
        self.input_shapes, self.taps = {"x": (None, 4)}, tuple(taps)
        self.values, self.lost, self.asked = values, lost, []

    def at(self, taps):
        self.asked.append([tap.weight for tap in taps])
        names = [name for tap in taps for name in (tap.input, tap.output)]
        return _Dump({name: self.values[name] for name in names}, self.lost)


class _Prober:
    def __init__(self, probe):
        self.made = probe

    def probe(self, path, weights):
        self.weights = list(weights)
        return self.made


def _model(count=3):
    """Layers ``0`` to ``count - 1``, each of which doubles what it takes."""
    model = nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(count)))
    with torch.no_grad():
        for layer in model:
            layer.weight.copy_(2 * torch.eye(4))
    return model.eval()


X = torch.eye(4)[:3] + 1
LAYERS = [Tap(f"{i}.weight", f"in{i}", f"out{i}") for i in range(3)]


def _values(**changes):
    """Right values of all layers, but for some that are told."""
    right = {f"in{i}": (lambda x, i=i: x * 2**i) for i in range(3)}
    right |= {f"out{i}": (lambda x, i=i: x * 2 ** (i + 1)) for i in range(3)}
    return right | changes


def _located(monkeypatch, probe, limit=0.01, model=None, inputs=X, off=0, **how):
    model = model or _model()
    monkeypatch.setattr(locate, "prober_for", lambda *_: _Prober(probe))
    with torch.no_grad():
        expected = model(X).numpy()
    actual = expected.copy()
    actual[off] += 1
    return locate.locate("m", model, inputs, ({"y": actual}, {"z": expected}), limit, **how)


def test_the_first_layer_that_is_off_is_named(monkeypatch):
    def off(x):
        return x * 7

    def found(lost=None, taps=LAYERS, **changes):
        return _located(monkeypatch, _Probe(taps, _values(**changes), lost))

    def place(layer, at, value, relative, **about):
        return Divergence(layer, at, value, pytest.approx(relative), 0.01, 3, 3, **about)

    assert found(out1=off) == place("1", "output", "out1", 0.75)
    assert found(in1=off, out1=off) == place("1", "input", "in1", 2.5)
    assert found(in0=off) == place("0", "inputs", "in0", 6)
    assert found() == place("2", "after", "", 0)
    assert found("an operation", out1=off).overflow is None  # nothing overflowed at this place
    infinite = found("an operation", out1=lambda x: x * np.float32(np.inf))
    assert infinite == place("1", "output", "out1", np.inf, overflow="an operation")


def test_an_error_up_to_the_limit_is_right(monkeypatch):
    probe = _Probe(LAYERS, _values(out1=lambda x: x * 5))
    assert _located(monkeypatch, probe, 0.25).at == "after"
    assert _located(monkeypatch, probe, 0.24).at == "output"
    probe = _Probe(LAYERS, _values(in1=lambda x: x * 2.5))
    assert _located(monkeypatch, probe, 0.25).at == "after"
    probe = _Probe(LAYERS, _values(in1=lambda x: x * 2.5, out1=lambda x: x * 7))
    assert _located(monkeypatch, probe, 0.25).at == "output"


def test_layers_that_the_file_does_not_show_are_told(monkeypatch):
    taps = [LAYERS[0], LAYERS[2]]
    found = _located(monkeypatch, _Probe(taps, _values(in2=lambda x: x * 7)))
    assert (found.layer, found.at, found.unseen) == ("2", "input", ("1",))
    assert (found.seen, found.layers) == (2, 3)
    found = _located(monkeypatch, _Probe(LAYERS[:1], _values()))
    assert (found.layer, found.at, found.unseen) == ("0", "after", ("1", "2"))
    found = _located(monkeypatch, _Probe(LAYERS[2:], _values(in2=lambda x: x * 7)))
    assert (found.layer, found.at, found.unseen) == ("2", "input", ("0", "1"))


def test_values_of_other_shapes_are_not_compared(monkeypatch):
    values = _values(in1=lambda x: x[:, :2], out2=lambda x: x[:, :2])
    found = _located(monkeypatch, _Probe(LAYERS, values))
    assert (found.layer, found.at, found.seen) == ("0", "after", 1)
    values |= {"out0": lambda x: x[:, :2]}
    with pytest.raises(dkm.DkmError) as caught:
        _located(monkeypatch, _Probe(LAYERS, values))
    assert str(caught.value) == (
        "no layer of the model is found in the file by the name of its weight; "
        "subgraphs are not searched"
    )


def test_a_folded_norm_may_stand_for_its_layer(monkeypatch):
    model = nn.Sequential(*_model(1), nn.BatchNorm1d(4, eps=0.0), *_model(1)).eval()
    with torch.no_grad():
        model[1].weight.fill_(3)
    taps = [Tap("0.weight", "in", "out"), Tap("2.weight", "in2", "out2")]
    values = {"in": lambda x: x, "out": lambda x: 6 * x, "in2": lambda x: 6 * x}
    last = {"out2": lambda x: 12 * x}
    found = _located(monkeypatch, _Probe(taps, values | last), model=model)
    assert (found.layer, found.at, found.unseen) == ("2", "after", ())
    plain = {"out": lambda x: 2 * x}  # as if it were apart
    assert _located(monkeypatch, _Probe(taps, values | last | plain), model=model).at == "after"
    found = _located(monkeypatch, _Probe(taps, values | last | {"in2": lambda x: x}), model=model)
    assert (found.layer, found.at, found.unseen) == ("2", "input", ())


def test_the_input_that_is_furthest_off_is_looked_at(monkeypatch):
    seen = []

    def note(x):
        seen.append(x.copy())
        return x

    for off in range(3):
        _located(monkeypatch, _Probe(LAYERS, _values(in0=note)), off=off)
    assert [x.tolist() for x in seen] == [[row] for row in X.tolist()]
    probe = _Probe(LAYERS, _values(in0=note))
    probe.input_shapes = {"x": (2, 4)}
    _located(monkeypatch, probe, off=1)
    assert seen[-1].tolist() == X[:2].tolist()


def test_layers_are_looked_at_in_groups_until_one_is_off(monkeypatch):
    probe = _Probe(LAYERS, _values(out1=lambda x: x * 7))
    found = _located(monkeypatch, probe, most=2 * 4 * 4)
    assert probe.asked == [["0.weight"], ["1.weight"]]
    assert (found.layer, found.seen) == ("1", 3)
    probe.asked.clear()
    _located(monkeypatch, probe)
    assert probe.asked == [["0.weight", "1.weight", "2.weight"]]


def test_inputs_of_which_no_sample_can_be_taken_are_refused(monkeypatch):
    for inputs, words in (
        (
            dkm.Steps([X]),
            "layers are compared in the first step only; give the inputs of that step",
        ),
        (
            (X, torch.ones(1, 3)),
            "layers are compared on one sample, and the inputs have no common sample dimension",
        ),
    ):
        with pytest.raises(dkm.DkmError) as caught:
            _located(monkeypatch, _Probe(LAYERS, _values()), inputs=inputs)
        assert str(caught.value) == words


@pytest.mark.parametrize(
    ("actual", "expected", "place"),
    [
        ([[0, 0], [0, -3], [2, 2]], np.zeros((3, 2)), 1),
        ([0, 1, np.nan], np.zeros(3), 2),
        ([0, np.inf, 3], np.zeros(3), 1),
        (np.ones((3, 1)), np.zeros(3), 0),
        (np.float64(3), np.float64(4), 0),
    ],
)
def test_the_worst_sample(actual, expected, place):
    pair = {"a": np.array(actual, np.float64)}, {"b": np.array(expected)}
    assert locate._worst(*pair) == place


def test_where_nothing_is_finite_in_both_there_is_no_error():
    nothing = np.full(2, np.nan)
    assert locate._error(nothing, nothing) == 0
    assert locate._error(nothing, np.ones(2)) == np.inf
    assert locate._error(np.array([3.0, 4.0]), np.array([3.0, 0.0])) == pytest.approx(4 / 3)
