"""The three numeric modes, and what is said of an overflow."""

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy._support.silence import quiet
from dkm_deploy.errors import DkmError
from tests.formats.mlpackage.packages import ct, mb, n, save, types

W = np.float32([[300.0, 0.1], [0.1, 0.2], [200.0, 0.3]])
X = np.float32([[250.0, 0.3]])


def half(values):
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float16).astype(np.float32)


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """An fp32 program: y = x W.T, z = y / 1000, out = relu(z)."""

    def body(x):
        y = mb.linear(x=x, weight=W, name="y")
        z = mb.real_div(x=y, y=1000.0, name="z")
        return mb.relu(x=z, name="out")

    return save(tmp_path_factory.mktemp("scores") / "m.mlpackage", body, (1, 2))


@pytest.mark.parametrize("numerics", ["fp32", "declared"])
def test_an_fp32_program_is_computed_in_fp32(scores, numerics):
    session = dkm.MLProgramEvaluator(scores, numerics=numerics)
    outputs = session.run({"x": X}, keep=["y"])
    np.testing.assert_allclose(outputs["y"], X @ W.T, rtol=1e-6)
    np.testing.assert_allclose(outputs["out"], X @ W.T / 1000, rtol=1e-6)
    assert outputs["out"].dtype == np.float32
    assert session.overflows == ()


def test_range_rounds_nothing_and_tells_all_that_fp16_cannot_hold(scores):
    session = dkm.MLProgramEvaluator(scores, numerics="range")
    x = np.float32([[7e4, 0.3]])
    outputs = session.run({"x": x})
    np.testing.assert_allclose(outputs["out"], np.maximum(x @ W.T / 1000, 0), rtol=1e-6)
    assert [(o.type, o.output, o.count) for o in session.overflows] == [
        ("input", "x", 1),
        ("linear", "y", 2),
    ]
    assert session.overflows[1].largest == pytest.approx(7e4 * 300, rel=1e-6)


def test_fp16_rounds_inputs_weights_and_every_result(scores):
    x = np.float32([[0.1, 0.3]])
    outputs = dkm.MLProgramEvaluator(scores, numerics="fp16").run({"x": x}, keep=["x", "y", "z"])
    np.testing.assert_array_equal(outputs["x"], half(x))
    y = half(half(x) @ half(W).T)
    np.testing.assert_array_equal(outputs["y"], y)
    np.testing.assert_array_equal(outputs["z"], half(y / 1000))
    assert (outputs["z"] != half(x @ W.T / 1000)).any()


def test_the_first_overflow_is_told_and_what_follows_from_it_is_not(scores):
    session = dkm.MLProgramEvaluator(scores, numerics="fp16")
    assert session.overflows == ()
    outputs = session.run({"x": X})
    assert np.isinf(outputs["out"][0, 0])
    (overflow,) = session.overflows
    assert overflow == dkm.Overflow(
        operation="y",
        type="linear",
        layer=overflow.layer,
        output="y",
        count=1,
        largest=pytest.approx(75000.03, rel=1e-4),
    )
    session.run({"x": X / 10})
    assert session.overflows == ()


def test_an_input_and_a_weight_may_overflow_too(tmp_path):
    big = np.full((3, 4), 1e5, np.float32)
    path = save(tmp_path / "m.mlpackage", lambda x: mb.add(x=x, y=big, name="y"), (4,))
    session = dkm.MLProgramEvaluator(path, numerics="fp16")
    session.run({"x": np.float32([0, 7e4, -8e4, 0])})
    assert [(o.type, o.count, o.largest) for o in session.overflows] == [
        ("const", 12, 1e5),
        ("input", 2, 8e4),
    ]


def test_infinity_that_was_there_is_no_overflow(tmp_path):
    mask = np.float32([0, -np.inf])
    path = save(tmp_path / "m.mlpackage", lambda x: mb.add(x=x, y=mask, name="y"), (2,))
    session = dkm.MLProgramEvaluator(path, numerics="fp16")
    assert session.run({"x": np.ones(2, np.float32)})["y"][1] == -np.inf
    assert session.overflows == ()


def test_nan_does_not_hide_an_overflow(tmp_path):
    path = save(tmp_path / "m.mlpackage", lambda x: mb.mul(x=x, y=2.0, name="y"), (3,))
    session = dkm.MLProgramEvaluator(path, numerics="fp16")
    session.run({"x": np.float32([np.nan, 4e4, 1])})
    assert [(o.output, o.count) for o in session.overflows] == [("y", 1)]


def test_the_edge_of_fp16(tmp_path):
    """65504 is the largest; what lies nearer to 65536 than to it becomes infinite."""
    path = save(tmp_path / "m.mlpackage", lambda x: mb.add(x=x, y=0.0, name="y"), (2,))
    session = dkm.MLProgramEvaluator(path, numerics="fp16")
    outputs = session.run({"x": np.float32([65519.9, 65520])})
    np.testing.assert_array_equal(outputs["y"], [65504, np.inf])
    assert [(o.count, o.largest) for o in session.overflows] == [(1, 65520.0)]


class Deep(nn.Sequential):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x):
        return torch.log_softmax(self.second(torch.relu(self.first(x)).square()), -1)


def test_the_layer_is_the_parameter_of_a_converted_model(tmp_path):
    """By the name in the torch model, also where an operation after the layer overflows."""
    torch.manual_seed(0)
    model = Deep().eval()
    with torch.no_grad():
        model.first.weight.mul_(400)
    frozen = dkm.palettize(model, dkm.Recipe.uniform(bits=4))
    x = torch.full((1, 16), 3.0)
    dkm.convert(frozen, (x,), tmp_path / "m.mlpackage", compute_precision="float16")
    session = dkm.MLProgramEvaluator(tmp_path / "m.mlpackage")
    session.run({"x": n(x)})
    assert session.overflows
    assert session.overflows[0].layer == "first.weight"
    assert session.overflows[0].type in ("square", "mul")


def test_a_layer_without_a_name_of_ours_goes_by_that_of_its_weight(tmp_path):
    model = Deep().eval()
    with quiet():
        program = torch.export.export(model, (torch.ones(1, 16),)).run_decompositions({})
        ct.convert(program, minimum_deployment_target=ct.target.iOS18, skip_model_load=True).save(
            str(tmp_path / "m.mlpackage")
        )
    session = dkm.MLProgramEvaluator(tmp_path / "m.mlpackage")
    session.run({"x": np.full((1, 16), 6e4, np.float32)})
    assert "first_weight" in session.overflows[0].layer
    assert session.overflows[0].type == "linear"


def test_an_epsilon_is_kept_from_zero(tmp_path):
    path = save(tmp_path / "m.mlpackage", lambda x: mb.log(x=x, epsilon=1e-12, name="y"), (2,))
    x = {"x": np.float32([0, 1])}
    np.testing.assert_array_equal(
        dkm.MLProgramEvaluator(path, numerics="fp16").run(x)["y"], half(np.log([2.0**-24, 1]))
    )
    np.testing.assert_allclose(
        dkm.MLProgramEvaluator(path, numerics="fp32").run(x)["y"],
        np.log([1e-12, 1 + 1e-12]),
        atol=1e-6,
    )


def test_unknown_numerics(scores):
    with pytest.raises(
        DkmError, match="numerics is 'bf16'; it must be one of fp32, range, declared, fp16"
    ):
        dkm.MLProgramEvaluator(scores, numerics="bf16")


def test_integers_are_left_alone(tmp_path):
    path = save(tmp_path / "m.mlpackage", lambda x: mb.mul(x=x, y=1000), (2,), dtype=types.int32)
    session = dkm.MLProgramEvaluator(path, numerics="fp16")
    outputs = session.run({"x": np.int32([100000, 3])})
    np.testing.assert_array_equal(outputs.popitem()[1], [100000000, 3000])
    assert session.overflows == ()
