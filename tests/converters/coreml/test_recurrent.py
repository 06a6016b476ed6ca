"""LSTM, GRU and RNN in Core ML: gates in the program's order, the parameter's when read back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.formats.mlpackage.constexpr import Constants
from dkm_deploy.formats.mlpackage.ml_program import functions
from dkm_deploy.formats.mlpackage.package import open_package
from dkm_deploy.runtimes.mlprogram import runtime
from tests.converters.coreml.programs import First, operations

FLOAT32 = {"compute_precision": "float32"}
LSTM_ORDER = [0, 1, 3, 2]  # Core ML has the cell's gate last
GRU_ORDER = [0, 2, 1]  # Core ML has the update gate last


def _converted(model, tmp_path, recipe=None, **options):
    frozen = dkm.palettize(First(model).eval(), recipe or dkm.Recipe.uniform(2))
    path = tmp_path / "m.mlpackage"
    dkm.convert(frozen, torch.randn(4, 2, 6), path, **{**FLOAT32, **options})
    return frozen, path


def _arrays(path, kind):
    """The constant inputs of every operation of a kind, decoded."""
    (function,) = functions(open_package(path)).values()
    constants = Constants(function.body)
    return [
        {key: constants.get(o[0]) for key, o in operation.inputs.items() if o[0] in constants}
        for operation in function.body.walk()
        if operation.type == kind
    ]


def _gates(tensor, order):
    return np.concatenate([tensor.detach().chunk(len(order))[gate] for gate in order])


def test_the_gates_of_an_lstm_are_in_core_mls_order(tmp_path):
    torch.manual_seed(0)
    frozen, path = _converted(nn.LSTM(6, 8, 2, bidirectional=True), tmp_path)
    cell, layers = frozen.module, _arrays(path, "lstm")
    assert len(layers) == 2
    for layer, found in enumerate(layers):
        for ours, theirs in (("", ""), ("_reverse", "_back")):
            for part in ("weight_ih", "weight_hh"):
                expected = _gates(getattr(cell, f"{part}_l{layer}{ours}"), LSTM_ORDER)
                np.testing.assert_array_equal(found[part + theirs], expected)
            biases = (getattr(cell, f"bias_{p}_l{layer}{ours}") for p in ("ih", "hh"))
            np.testing.assert_allclose(found["bias" + theirs], _gates(sum(biases), LSTM_ORDER))


def test_a_gru_resets_after_the_product_as_pytorch_does(tmp_path):
    torch.manual_seed(0)
    frozen, path = _converted(nn.GRU(6, 8), tmp_path)
    cell, (found,) = frozen.module, _arrays(path, "gru")
    for part in ("weight_ih", "weight_hh"):
        expected = _gates(getattr(cell, f"{part}_l0"), GRU_ORDER)
        np.testing.assert_array_equal(found[part], expected)
    np.testing.assert_array_equal(found["input_bias"], _gates(cell.bias_ih_l0, GRU_ORDER))
    np.testing.assert_array_equal(found["bias"], _gates(cell.bias_hh_l0, GRU_ORDER))
    assert found["reset_after"].item() is True


def test_a_gru_before_ios_18_is_a_loop_over_whole_weights(tmp_path):
    frozen, path = _converted(nn.GRU(6, 8), tmp_path, minimum_deployment_target="iOS17")
    counts = operations(path)
    assert counts["while_loop"] == 1
    assert counts["gru"] == 0
    assert counts["constexpr_lut_to_dense"] == 2
    assert dkm.read_palettes(path) == dkm.palettes(frozen)


@pytest.mark.parametrize("target", ["iOS17", "iOS18"])
@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])
def test_steps_and_states_are_pytorchs(tmp_path, cell, target):
    torch.manual_seed(0)
    model = cell(6, 8, 2, bidirectional=True, batch_first=True).eval()
    frozen, x = dkm.palettize(model, dkm.Recipe.uniform(2)), torch.randn(2, 4, 6)
    path, options = tmp_path / "m.mlpackage", {"minimum_deployment_target": target}
    dkm.convert(frozen, x, path, **FLOAT32, **options)
    found = runtime.load(path).run({"input": x.numpy()})
    steps, states = frozen(x)
    expected = (steps, *states) if cell is nn.LSTM else (steps, states)
    for number, value in enumerate(expected):
        output = torch.tensor(found[f"output_{number}"])
        torch.testing.assert_close(output, value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("target", ["iOS16", "iOS17"])
def test_an_lstm_in_float16_on_older_targets(tmp_path, target):
    options = {"minimum_deployment_target": target, "compute_precision": "float16"}
    frozen, path = _converted(nn.LSTM(6, 8, bias=False), tmp_path, **options)
    found = dkm.read_palettes(path)
    assert operations(path)["lstm"] == 1
    for name, palette in dkm.palettes(frozen).items():
        assert found[name] == palette.astype(found[name].lut.dtype)


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize(
    "spec",
    [
        dkm.PaletteSpec(bits=1, group_size=2),
        dkm.PaletteSpec(bits=2, cluster_dim=2),
        dkm.PaletteSpec(bits=2, cluster_dim=2, axis=1),
        dkm.PaletteSpec(bits=2, per_channel_scale=True),
    ],
)
def test_every_kind_of_palette_reads_back_in_the_parameters_order(tmp_path, cell, spec):
    options = {"minimum_deployment_target": "iOS26"}
    frozen, path = _converted(cell(6, 8), tmp_path, dkm.Recipe(spec), **options)
    assert dkm.read_palettes(path) == dkm.palettes(frozen)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            dkm.PaletteSpec(bits=2, group_size=16),
            "a LUT of 16 rows spans two of its 4 gates; .* divides 8",
        ),
        (dkm.PaletteSpec(bits=2, cluster_dim=16), "a vector of 16 spans two of its 4 gates of 8"),
    ],
)
def test_a_lut_or_vector_across_gates_is_refused(tmp_path, spec, message):
    recipe = dkm.Recipe(rules=[dkm.Rule("*weight_ih*", spec)])
    with pytest.raises(dkm.DkmError, match=rf"^module\.weight_ih_l0: {message}"):
        _converted(nn.LSTM(6, 8), tmp_path, recipe)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (dkm.PaletteSpec(bits=2, group_size=16), "a LUT of 16 rows spans two of its 4 gates"),
        (dkm.PaletteSpec(bits=2, cluster_dim=16), "a vector of 16 spans two of its 4 gates of 8"),
    ],
)
def test_what_spans_gates_is_refused_before_training(spec, message):
    recipe = dkm.Recipe(rules=[dkm.Rule("*weight_ih*", spec)])
    with pytest.raises(dkm.DkmError, match=rf"^weight_ih_l0: target coreml .*: {message}"):
        dkm.prepare(nn.LSTM(6, 8), recipe, targets=("coreml",))
    dkm.prepare(nn.LSTM(6, 8), recipe, targets=("onnx",))


@pytest.mark.parametrize(
    ("activation", "target"),
    [
        ("tanh", "iOS18"),
        ("relu", "iOS16"),
        pytest.param("relu", "iOS18", marks=pytest.mark.slow),
        pytest.param("tanh", "iOS16", marks=pytest.mark.slow),
    ],
)
def test_a_plain_rnn_is_one_operation_a_layer_and_direction(tmp_path, activation, target):
    torch.manual_seed(0)
    options = {"nonlinearity": activation, "batch_first": True}
    for bias, both in ((True, False), (False, True)):
        model = nn.RNN(6, 8, 2, bias=bias, bidirectional=both, **options).eval()
        frozen, x = dkm.palettize(model, dkm.Recipe.uniform(2)), torch.randn(2, 4, 6)
        path, wanted = tmp_path / "m.mlpackage", {"minimum_deployment_target": target}
        dkm.convert(frozen, x, path, force=True, **FLOAT32, **wanted)
        assert operations(path)["rnn"] == (4 if both else 2)
        assert operations(path)["while_loop"] == 0
        assert dkm.read_palettes(path) == dkm.palettes(frozen)
        found = runtime.load(path).run({"input": x.numpy()})
        for number, value in enumerate(frozen(x)):
            output = torch.tensor(found[f"output_{number}"])
            torch.testing.assert_close(output, value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("target", ["iOS16", "iOS17"])
def test_a_plain_rnn_in_float16(tmp_path, target):
    options = {"minimum_deployment_target": target, "compute_precision": "float16"}
    frozen, path = _converted(nn.RNN(6, 8), tmp_path, **options)
    found = dkm.read_palettes(path)
    assert operations(path)["rnn"] == 1
    for name, palette in dkm.palettes(frozen).items():
        assert found[name] == palette.astype(found[name].lut.dtype)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_a_projection_is_refused_before_training_too(tmp_path):
    model = nn.LSTM(6, 8, proj_size=4)
    with pytest.raises(dkm.DkmError, match="proj_size has no operation in Core ML"):
        _converted(model, tmp_path)
    expected = "^module: target coreml:iOS17 cannot hold it: an LSTM with proj_size"
    for call in (dkm.prepare, dkm.palettize):
        with pytest.raises(dkm.DkmError, match=expected):
            call(First(model), dkm.Recipe.uniform(2), targets=("onnx", "coreml:iOS17"))
    dkm.prepare(model, dkm.Recipe.uniform(2), targets=("onnx",))
