from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from tests.models import TRAINABLE, TiedNet, images, small_net


def _step(model, optimizer, inputs):
    loss = model(inputs).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def test_training_moves_weights_and_centroids():
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)  # made before prepare
    dkm.prepare(model, TRAINABLE).train()
    before = copy.deepcopy(model.state_dict())
    losses = [_step(model, optimizer, images()) for _ in range(10)]
    assert losses[-1] < losses[0]
    after = model.state_dict()
    for name in (
        "stem.parametrizations.weight.original",
        "stem.parametrizations.weight.0.centroids",
    ):
        assert not torch.equal(before[name], after[name])


def test_a_seen_weight_takes_as_many_values_as_its_palette_only_in_eval():
    model = dkm.prepare(small_net(), dkm.Recipe.uniform(2))
    assert len(model.eval().stem.weight.unique()) == 4
    assert len(model.train().stem.weight.unique()) > 4


def test_eval_is_what_freeze_writes():
    model = dkm.prepare(small_net(), TRAINABLE).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        _step(model, optimizer, images())
    expected = model.eval()(images())
    assert torch.equal(dkm.freeze(model)(images()), expected)


def test_evaluating_and_asking_for_the_status_change_nothing():
    model = dkm.prepare(small_net(), TRAINABLE)
    before = copy.deepcopy(model.state_dict())
    model.eval()(images())
    dkm.status(model)
    dkm.soft_copy(model)
    dkm.freeze(model)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_run_killed_and_resumed_gives_the_same_bits():
    recipe = dkm.Recipe(dkm.PaletteSpec(2), schedule=dkm.Schedule(end=0.1, steps=8))

    def run(model, steps):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        for _ in range(steps):
            _step(model, optimizer, images())
            dkm.step(model)

    whole = dkm.prepare(small_net(), recipe).train()
    run(whole, 6)
    first = dkm.prepare(small_net(), recipe).train()
    run(first, 3)
    resumed = dkm.prepare(small_net(seed=5), recipe).train()
    resumed.load_state_dict(first.state_dict())
    run(resumed, 3)
    ours, theirs = whole.state_dict(), resumed.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_schedule_anneals_the_temperature():
    recipe = dkm.Recipe(dkm.PaletteSpec(2), schedule=dkm.Schedule(end=0.01, steps=10))
    model = dkm.prepare(small_net(), recipe, method=dkm.DKM(temperature=0.1))

    def temperature():
        return dkm.status(model)["stem.weight"].temperature

    assert temperature() == pytest.approx(0.1)
    dkm.step(model, 5)
    assert temperature() == pytest.approx(0.01)
    dkm.step(model, 50)
    assert temperature() == pytest.approx(0.001)


def test_status_tells_the_state_of_every_layer():
    model = dkm.prepare(small_net(), TRAINABLE)
    status = dkm.status(model)
    assert list(status) == ["stem.weight", "head.weight"]
    stem = status["stem.weight"]
    assert (stem.bits, stem.cluster_dim, stem.groups, stem.distinct_centroids) == (3, 1, 1, 8)
    assert stem.variance == pytest.approx(small_net().stem.weight.var(correction=0).item())
    soft, hard = dkm.soft_copy(model).stem.weight, dkm.freeze(model).stem.weight
    gap = (soft - hard).norm() / small_net().stem.weight.norm()
    assert stem.soft_hard_gap == pytest.approx(gap.item(), rel=1e-5)


def test_a_tied_weight_stays_tied():
    model = dkm.prepare(TiedNet(), dkm.Recipe.uniform(3)).train()
    assert list(dkm.status(model)) == ["embed.weight", "middle.weight"]
    ids = torch.randint(0, 20, (4, 6), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        _step(model, optimizer, ids)
    frozen = dkm.freeze(model)
    assert torch.equal(frozen.embed.weight, frozen.out.weight)
    assert list(dkm.palettes(frozen)) == ["embed.weight", "middle.weight"]


@pytest.mark.parametrize(
    ("module", "inputs"),
    [
        (lambda: nn.LSTM(6, 8, 2, bidirectional=True), torch.randn(5, 2, 6)),
        (lambda: nn.GRU(6, 8), torch.randn(5, 2, 6)),
        (lambda: nn.ConvTranspose1d(6, 4, 3), torch.randn(2, 6, 9)),
        (lambda: nn.Conv3d(2, 4, 3), torch.randn(1, 2, 5, 5, 5)),
        (lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0), torch.randn(5, 2, 8)),
    ],
)
def test_any_module_trains_and_freezes(module, inputs):
    def output(model):
        result = model(inputs)
        return result[0] if isinstance(result, tuple) else result

    torch.manual_seed(0)
    model = module()
    plain = output(copy.deepcopy(model).eval())
    dkm.prepare(model, dkm.Recipe.uniform(2)).train()
    output(model).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
    frozen = dkm.freeze(model)
    assert len(dkm.palettes(frozen)) == sum(p.ndim > 1 for p in module().parameters())
    assert not torch.allclose(output(frozen), plain)  # the palettes are what it computes with
    torch.testing.assert_close(output(frozen), output(model.eval()))


def test_groups_and_vectors_train():
    spec = dkm.PaletteSpec(bits=2, cluster_dim=2, axis=0, group_size=4)
    model = dkm.prepare(small_net(), dkm.Recipe(rules=[dkm.Rule("stem.*", spec)])).train()
    _step(model, torch.optim.SGD(model.parameters(), lr=0.1), images())
    palette = dkm.palettes(dkm.freeze(model))["stem.weight"]
    assert palette.lut.shape == (2, 1, 1, 1, 4, 2)
    assert palette.indices.shape == (4, 3, 3, 3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_the_model_keeps_its_dtype(dtype):
    model = dkm.prepare(nn.Linear(16, 8).to(dtype), dkm.Recipe.uniform(2)).train()
    model(torch.randn(3, 16).to(dtype)).float().square().mean().backward()
    frozen = dkm.freeze(model)
    assert frozen.weight.dtype == dtype
    assert len(frozen.weight.unique()) <= 4


class TestBadInput:
    def test_nan_names_the_parameter_and_leaves_the_model_alone(self):
        model = small_net()
        with torch.no_grad():
            model.head.weight[1, 2] = torch.nan
        with pytest.raises(dkm.DkmError, match=r"head\.weight: the weights hold NaN"):
            dkm.prepare(model, TRAINABLE)
        assert isinstance(model.stem.weight, nn.Parameter)

    def test_twice(self):
        model = dkm.prepare(small_net(), TRAINABLE)
        with pytest.raises(dkm.DkmError, match=r"stem\.weight has a palette already"):
            dkm.prepare(model, TRAINABLE)

    def test_unknown_method(self):
        with pytest.raises(
            dkm.DkmError, match="unknown training method 'dkmm'; known methods are dkm"
        ):
            dkm.prepare(small_net(), TRAINABLE, method="dkmm")

    def test_unknown_target(self):
        with pytest.raises(dkm.DkmError, match="unknown target 'tflite'.*coreml, onnx"):
            dkm.prepare(small_net(), TRAINABLE, targets=("tflite",))

    def test_a_target_that_cannot_hold_it(self):
        model = nn.Module()
        model.register_parameter("w", nn.Parameter(torch.randn(2, 2, 2, 2, 2, 2)))
        with pytest.raises(dkm.DkmError, match="w: target coreml cannot hold it: rank 6"):
            dkm.prepare(model, dkm.Recipe.uniform(2), targets=("onnx", "coreml"))

    @pytest.mark.parametrize("temperature", [0, -1, float("nan")])
    def test_temperature(self, temperature):
        with pytest.raises(dkm.DkmError, match="temperature is"):
            dkm.DKM(temperature=temperature)

    def test_iterations(self):
        with pytest.raises(dkm.DkmError, match="iterations is 0"):
            dkm.DKM(iterations=0)

    @pytest.mark.parametrize("call", [dkm.freeze, dkm.status, dkm.step, dkm.soft_copy])
    def test_a_model_that_is_not_prepared(self, call):
        with pytest.raises(dkm.DkmError, match="no prepared weights; call dkm.prepare"):
            call(small_net())

    def test_freezing_after_divergence(self):
        model = dkm.prepare(small_net(), TRAINABLE)
        with torch.no_grad():
            model.stem.parametrizations.weight.original.fill_(torch.inf)
        with pytest.raises(dkm.DkmError, match=r"stem\.weight: .*training diverged"):
            dkm.freeze(model)
