"""Correction of a palettized model's outputs on calibration data without labels."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.ops import lut_to_dense
from dkm_deploy.parity.output_errors import errors
from dkm_deploy.post_training.output_correction.channel_statistics import (
    channel_dim,
    channel_mean,
    row_weights,
)
from dkm_deploy.post_training.output_correction.layer import correct_layer
from dkm_deploy.post_training.output_correction.lut_least_squares import RIDGE
from tests.models import TiedNet, images, small_net

UNIFORM = dkm.Recipe.uniform(2)
SCALED = {"per_channel_scale": True}


def _data(*shape, seed=1):
    """Samples whose features have means and a common part, as activations have."""
    generator = torch.Generator().manual_seed(seed)
    noise, common = (
        torch.randn(shape, generator=generator),
        torch.randn(shape[0], generator=generator),
    )
    return noise + 0.5 + common.reshape(-1, *[1] * (len(shape) - 1))


def _pair(layer, **spec):
    torch.manual_seed(0)
    layer.reset_parameters()
    spec = {"bits": 2} | spec
    return layer.eval(), dkm.palettize(layer, dkm.Recipe.uniform(**spec))


def _best_lut(frozen, layer, x):
    """By numpy: least squares over one column an entry, with the ridge as further rows."""
    palette, wanted = dkm.palettes(frozen)["weight"], layer(x)
    columns, weights = [], []
    for entry in np.eye(palette.lut.size, dtype=np.float32):
        lut = torch.from_numpy(entry.reshape(palette.lut.shape))
        decoder = copy.deepcopy(frozen).parametrizations.weight[0]
        decoder.lut = lut
        other = copy.deepcopy(layer)
        other.weight.data = decoder(torch.tensor(palette.indices))
        if other.bias is not None:
            other.bias.data.zero_()
        columns.append(_weighted(other, other(x), wanted))
        weights.append(other.weight.detach().flatten())
    a, w = (torch.stack(c, 1).double().detach().numpy() for c in (columns, weights))
    now = palette.lut.astype(np.float64).ravel()
    root = np.sqrt(RIDGE * np.sum((a @ now) ** 2) / np.sum((w @ now) ** 2))
    right = _weighted(layer, wanted, wanted).double().detach().numpy()
    rows, right = np.concatenate([a, root * w]), np.concatenate([right, root * (w @ now)])
    return np.linalg.lstsq(rows, right, rcond=None)[0].reshape(palette.lut.shape)


def _weighted(layer, outputs, wanted):
    """Times the roots of the rows' weights; a bias takes up the weighted mean of each channel."""
    dim = channel_dim(layer)
    (weights,) = row_weights([wanted], dim)
    if layer.bias is not None:
        others = [other for other in range(outputs.ndim) if other != outputs.ndim + dim]
        mean = (weights * outputs).sum(others, keepdim=True) / weights.sum()
        outputs = outputs - mean
    return (weights.sqrt() * outputs).flatten()


def test_rows_count_the_less_the_larger_they_are():
    rows = torch.tensor([[3.0, 4.0], [0.0, 5.0], [0.0, 0.0], [30.0, 40.0], [5.0, 0.0]])
    (weights,) = row_weights([rows], -1)
    expected = [[1 / 2], [1 / 2], [1], [1 / 101], [1 / 2]]
    torch.testing.assert_close(weights, torch.tensor(expected))
    (of_images,) = row_weights([rows.T.reshape(1, 2, 5, 1)], -3)
    assert torch.equal(of_images.flatten(), weights.flatten())
    assert torch.equal(row_weights([torch.zeros(3, 2)], -1)[0], torch.ones(3, 1))


def test_a_few_huge_rows_do_not_decide():
    """As of a transformer's first token: the others must come nearer as if it were not there."""
    layer, frozen = _pair(nn.Linear(24, 16))
    x = _data(256, 24)
    x[::64] *= 100
    usual = x[x.norm(dim=1) < 100]
    with_them, without = (
        (dkm.correct_outputs(frozen, layer, some)(usual) - layer(usual)).norm()
        for some in (x, usual)
    )
    before = (frozen(usual) - layer(usual)).norm()
    assert with_them < 1.02 * without < before


@pytest.mark.parametrize(
    ("layer", "spec", "shape"),
    [
        (nn.Linear(24, 16), {}, (64, 24)),
        (nn.Linear(24, 16, bias=False), {"bits": 3}, (64, 24)),
        (nn.Linear(24, 16, bias=False), {"cluster_dim": 2, "axis": 1}, (8, 5, 24)),
        (nn.Linear(24, 16), {"group_size": 4}, (64, 24)),
        (
            nn.Conv2d(6, 8, 3, padding=1, padding_mode="reflect"),
            {"per_channel_scale": True},
            (8, 6, 5, 5),
        ),
        (nn.Conv2d(8, 8, 3, groups=8, bias=False), {}, (8, 8, 5, 5)),
        (nn.ConvTranspose1d(6, 8, 3, stride=2), {}, (8, 6, 9)),
    ],
)
def test_the_lut_is_that_of_least_squares(layer, spec, shape):
    layer, frozen = _pair(layer, **spec)
    x = _data(*shape)
    corrected = dkm.palettes(dkm.correct_outputs(frozen, layer, x))["weight"]
    expected = _best_lut(frozen, layer, x)
    start = dkm.palettes(frozen)["weight"]
    assert np.array_equal(corrected.indices, start.indices)
    gap = np.linalg.norm(corrected.lut - expected)
    assert gap < 0.01 * np.linalg.norm(start.lut - expected)


def test_the_bias_takes_up_the_mean_gap():
    layer, frozen = _pair(nn.Conv2d(3, 8, 3))
    x = _data(16, 3, 6, 6)
    weights = row_weights([layer(x)], -3)
    after, before = (
        channel_mean([other(x) - layer(x)], weights, -3).abs().max()
        for other in (dkm.correct_outputs(frozen, layer, x), frozen)
    )
    assert after < 1e-5 * layer(x).abs().max()
    assert before > 0.01


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("first", [nn.Conv2d(3, 8, 3, bias=False), nn.ReLU()])
def test_a_batch_norm_is_fitted_by_a_line_a_channel(first, affine):
    torch.manual_seed(0)
    channels = 8 if isinstance(first, nn.Conv2d) else 3
    model = nn.Sequential(nn.Conv2d(3, 3, 1), first, nn.BatchNorm2d(channels, affine=affine))
    for _ in range(20):
        model(_data(16, 3, 6, 6, seed=5))
    x = _data(64, 3, 6, 6)
    frozen = dkm.palettize(model.eval(), UNIFORM)
    before, after = (
        _lines(other(x), model(x)) for other in (frozen, dkm.correct_outputs(frozen, model, x))
    )
    assert np.abs(after - [1, 0]).max() < 0.02
    assert np.abs(before - [1, 0]).max() > 0.05


def _lines(actual, wanted):
    """Slope and offset of weighted least squares, channel by channel."""
    roots = row_weights([wanted], -3)[0].sqrt().detach().flatten()
    channels = zip(*(t.detach().transpose(0, 1).flatten(1) for t in (actual, wanted)), strict=True)
    return np.array([np.polyfit(a, w, 1, w=roots) for a, w in channels])


def _correct(frozen, original, calibration):
    """The corrected model, and the record of what was done."""
    corrected = dkm.correct_outputs(frozen, original, calibration)
    return corrected, dkm.Correction.of(corrected)


def test_the_layers_and_the_outputs_come_nearer():
    model, x = small_net(), images(64)
    frozen = dkm.palettize(model, UNIFORM)
    corrected, done = _correct(frozen, model, x)
    assert [layer.name for layer in done.layers] == ["stem", "depthwise", "head"]
    assert [layer.corrected for layer in done.layers] == [
        ("stem.weight", "norm"),
        ("depthwise.weight", "depthwise.bias"),
        ("head.weight", "head.bias"),
    ]
    assert all(layer.error_after < layer.error_before for layer in done.layers)
    others = images(64, seed=9)
    gaps = [(m(others) - model(others)).norm() for m in (corrected, frozen)]
    assert gaps[0] < 0.8 * gaps[1]
    assert done.unchanged == {}


def test_the_model_with_the_nearest_outputs_is_kept(monkeypatch):
    """Of one with LUTs, one without and the one as it was: here the planted faults decide."""
    model, x = small_net(), images(64)
    frozen = dkm.palettize(model, UNIFORM)
    corrected, done = _correct(frozen, model, x)
    before, after = (
        ((m(x) - model(x)).norm() / model(x).norm()).item() for m in (frozen, corrected)
    )
    assert (done.error_before, done.error_after) == pytest.approx((before, after), rel=1e-4)
    assert after < before

    def _bad_luts(stage, samples, luts):
        corrected = correct_layer(stage, samples, luts)
        if luts and stage.layer == "head":
            samples.layer.bias += 100
        return corrected

    monkeypatch.setattr(
        "dkm_deploy.post_training.output_correction.correct.correct_layer", _bad_luts
    )
    corrected, without = _correct(frozen, model, x)
    assert dkm.palettes(corrected) == dkm.palettes(frozen)
    assert done.error_after < without.error_after < done.error_before
    names = ["stem.weight", "depthwise.weight", "head.weight"]
    reason = "the model's outputs came nearer to the original's without"
    assert without.unchanged == dict.fromkeys(names, reason)

    def _all_bad(stage, samples, luts):
        return _bad_luts(stage, samples, {"any"})

    monkeypatch.setattr(
        "dkm_deploy.post_training.output_correction.correct.correct_layer", _all_bad
    )
    corrected, neither = _correct(frozen, model, x)
    assert torch.equal(corrected(x), frozen(x))
    assert neither.layers == ()
    assert neither.error_after == neither.error_before


def test_models_are_left_alone_and_only_values_change():
    model = small_net().train()
    frozen = dkm.palettize(model, UNIFORM)
    before = [copy.deepcopy(m.state_dict()) for m in (model, frozen)]
    corrected = dkm.correct_outputs(frozen, model, images(8))
    for state, m in zip(before, (model, frozen), strict=True):
        assert all(torch.equal(state[name], tensor) for name, tensor in m.state_dict().items())
    assert model.training
    assert not corrected.training
    old, new = dkm.palettes(frozen), dkm.palettes(corrected)
    assert old.keys() == new.keys()
    assert all(np.array_equal(old[name].indices, new[name].indices) for name in old)
    assert {p.lut.dtype for p in new.values()} == {np.dtype(np.float32)}


class _Forbidden:
    def __getattribute__(self, name):
        raise AssertionError(f"a label's {name} was read")


def test_labels_are_not_read():
    model = small_net()
    frozen = dkm.palettize(model, UNIFORM)
    parts = images(16).split(4)
    labelled = dkm.correct_outputs(frozen, model, [(part, _Forbidden()) for part in parts])
    assert dkm.palettes(labelled) == dkm.palettes(dkm.correct_outputs(frozen, model, iter(parts)))


def test_the_files_hold_what_was_corrected(tmp_path):
    model, x = small_net(), images(16)
    corrected = dkm.correct_outputs(dkm.palettize(model, UNIFORM), model, x)
    dkm.save(corrected, tmp_path / "m.safetensors")
    assert torch.equal(dkm.load(tmp_path / "m.safetensors", model)(x), corrected(x))
    artifact = dkm.convert(corrected, x[:2], tmp_path / "m.onnx")
    assert dkm.read_palettes(artifact.path) == dkm.palettes(corrected)
    assert dkm.validate([artifact.path], reference=corrected, inputs={"x": x[:2]})


class _Twice(nn.Module):
    """One layer that is called twice, and one that no output needs."""

    def __init__(self):
        super().__init__()
        self.layer, self.spare = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        return self.layer(torch.relu(self.layer(x)))


def test_a_layer_that_is_called_twice_is_corrected_on_both_calls():
    torch.manual_seed(0)
    model, x = _Twice().eval(), _data(64, 6)
    _, done = _correct(dkm.palettize(model, UNIFORM), model, x)
    assert [layer.name for layer in done.layers] == ["layer"]
    assert done.layers[0].error_after < done.layers[0].error_before
    assert done.unchanged == {"spare.weight": "its layer was not called by itself"}


class _Squared(nn.Linear):
    """Not linear in its weight."""

    def forward(self, x):
        return nn.functional.linear(x, self.weight.square(), self.bias)


def test_what_is_left_is_listed_with_the_reason():
    torch.manual_seed(0)
    model = nn.Sequential(
        _Squared(6, 6),
        nn.GRU(6, 6),
    )
    _, done = _correct(dkm.palettize(model.eval(), UNIFORM), model, _data(16, 3, 6))
    assert done.unchanged == {
        "0.weight": "no other LUT brought the outputs nearer to the original's",
        "1.weight_ih_l0": "its layer is of type GRU; corrected are linear layers and convolutions",
        "1.weight_hh_l0": "its layer is of type GRU; corrected are linear layers and convolutions",
    }


def test_tied_weights_keep_their_lut():
    model = TiedNet().eval()
    ids = torch.randint(0, 20, (32, 5), generator=torch.Generator().manual_seed(0))
    _, done = _correct(dkm.palettize(model, UNIFORM), model, ids)
    assert done.unchanged == {"embed.weight": "shared by embed.weight, out.weight"}
    assert [layer.corrected for layer in done.layers] == [
        ("middle.weight", "middle.bias"),
        ("out.bias",),
    ]


def test_attention_and_positional_arguments():
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    _, done = _correct(dkm.palettize(model, UNIFORM), model, _data(16, 4, 8))
    assert [layer.name for layer in done.layers] == ["linear1", "linear2"]
    assert done.unchanged.keys() == {"self_attn.in_proj_weight", "self_attn.out_proj.weight"}


def test_half_precision():
    model, x = small_net().half(), images(16).half()
    corrected = dkm.correct_outputs(dkm.palettize(model, UNIFORM), model, x)
    assert {p.lut.dtype for p in dkm.palettes(corrected).values()} == {np.dtype(np.float16)}
    assert torch.isfinite(corrected(x)).all()


def test_no_error_stays_no_error():
    model, x = small_net(), images(16)
    frozen = dkm.palettize(model, dkm.Recipe(rules=[dkm.Rule(spec=8)]))
    outputs = [m(x).detach().numpy() for m in (dkm.correct_outputs(frozen, model, x), model)]
    assert errors(*outputs).relative < 1e-3


@pytest.mark.parametrize(
    ("spec", "shape", "axis"), [((1, 1, 4, 1), (3, 6), 0), ((1, 2, 4, 2), (3, 4), 1)]
)
def test_the_op_is_differentiable_in_the_lut(spec, shape, axis):
    generator = torch.Generator().manual_seed(0)
    indices = torch.randint(0, 4, shape, generator=generator).to(torch.uint8)
    lut = torch.randn(spec, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda entries: lut_to_dense(indices, entries, axis), lut)


class TestErrors:
    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (None, "calibration data is missing"),
            ([], "calibration has no batch"),
            ([torch.zeros(2, 5)], "does not run on calibration batch 1"),
            ([images(2), torch.zeros(2, 5)], "does not run on calibration batch 2"),
            ([images(2) * torch.nan], "stem: on calibration batch 1 its outputs in the frozen"),
        ],
    )
    def test_bad_calibration(self, data, message):
        model = small_net()
        with pytest.raises(dkm.DkmError, match=message):
            dkm.correct_outputs(dkm.palettize(model, UNIFORM), model, data)

    def test_another_model(self):
        frozen = dkm.palettize(small_net(), UNIFORM)
        with pytest.raises(dkm.DkmError, match="stem.weight: the original has no such tensor"):
            dkm.correct_outputs(frozen, nn.Linear(3, 3), images())

    def test_an_original_whose_batch_norms_are_not_folded(self):
        model = small_net()
        frozen = dkm.palettize(dkm.fold_batch_norm(model, images()), UNIFORM)
        with pytest.raises(dkm.DkmError, match="stem.bias: the original has no such tensor"):
            dkm.correct_outputs(frozen, model, images())

    def test_a_frozen_original(self):
        frozen = dkm.palettize(small_net(), UNIFORM)
        with pytest.raises(dkm.DkmError, match="stem.weight: the original has no such tensor"):
            dkm.correct_outputs(frozen, frozen, images())

    def test_a_model_of_other_shapes(self):
        frozen = dkm.palettize(nn.Linear(6, 3), UNIFORM)
        with pytest.raises(dkm.DkmError, match=r"weight: its shape is \(3, 6\), and \(4, 6\) in"):
            dkm.correct_outputs(frozen, nn.Linear(6, 4), torch.zeros(2, 6))

    def test_a_model_that_is_not_frozen(self):
        with pytest.raises(dkm.DkmError, match="frozen has no palettes"):
            dkm.correct_outputs(small_net(), small_net(), images())
