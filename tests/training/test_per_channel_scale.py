"""Palettes with a scale for each channel: clustering, training, freezing, checkpoints."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.clustering.layout import from_vectors, to_vectors
from tests.clustering.dkm.reference import dense_soft_cluster
from tests.models import SmallNet, TiedNet, images, small_net
from tests.training.loop.runs import Killed, assert_same, batches, fit_quietly, kill_at

SCALED = dkm.Recipe.uniform(3, per_channel_scale=True)


def uneven(dtype=torch.float32) -> nn.Linear:
    """16 channels whose sizes lie a factor of 100 apart."""
    torch.manual_seed(0)
    layer = nn.Linear(64, 16, bias=False, dtype=dtype)
    with torch.no_grad():
        layer.weight.mul_(torch.logspace(0, 2, 16, dtype=dtype)[:, None])
    return layer


def channel_errors(weight: torch.Tensor, frozen: nn.Module) -> torch.Tensor:
    return (frozen.weight - weight).norm(dim=1) / weight.norm(dim=1)


@pytest.mark.parametrize("options", [{}, {"group_size": 8}, {"cluster_dim": 2, "axis": 1}])
def test_channels_of_different_size_share_a_lut_well(options):
    layer = uneven()
    weight = layer.weight.detach()
    plain, scaled = (
        dkm.palettize(layer, dkm.Recipe.uniform(3, per_channel_scale=flag, **options))
        for flag in (False, True)
    )
    errors = channel_errors(weight, scaled)
    assert errors.max() < 0.5
    assert errors.mean() < 0.5 * channel_errors(weight, plain).mean()


@pytest.mark.parametrize("dim", [1, 2])
def test_the_gradient_of_dkm_is_that_of_dense_autograd(dim):
    spec = dkm.PaletteSpec(2, cluster_dim=dim, axis=1, per_channel_scale=True)
    layer = uneven(torch.float64)
    weight = layer.weight.detach().clone().requires_grad_()
    upstream = torch.randn(16, 64, dtype=torch.float64)
    dkm.prepare(layer, dkm.Recipe(spec), method=dkm.DKM(tau_absolute=0.02)).train()
    start = layer.parametrizations.weight[0].centroids.clone()
    soft = layer.weight
    (soft * upstream).sum().backward()

    scale = weight.detach().abs().amax(1, keepdim=True)
    vectors = to_vectors(weight / scale, spec)
    tau = torch.full((1,), 0.02, dtype=torch.float64)
    expected = scale * from_vectors(
        dense_soft_cluster(vectors, start, tau, 1)[0], weight.shape, spec
    )
    (expected * upstream).sum().backward()
    torch.testing.assert_close(soft, expected, rtol=1e-6, atol=1e-6)
    found = layer.parametrizations.weight.original.grad
    torch.testing.assert_close(found, weight.grad, rtol=1e-5, atol=1e-6)


def test_straight_through_is_straight_through_in_every_channel():
    layer = dkm.prepare(uneven(), SCALED, method="ste").train()
    layer.weight.sum().backward()
    gradient = layer.parametrizations.weight.original.grad
    torch.testing.assert_close(gradient, torch.ones(16, 64))


@pytest.mark.parametrize("method", ["dkm", "ste"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_eval_is_what_freeze_writes(method, dtype):
    layer = dkm.prepare(uneven(dtype), SCALED, method=method).train()
    scale = layer.parametrizations.weight[0].scale.clone()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    for _ in range(3):
        layer.weight.float().square().mean().backward()
        optimizer.step()
    weight = layer.eval().weight
    frozen = dkm.freeze(layer)
    assert weight.dtype == dtype
    assert torch.equal(frozen.weight, weight)
    assert torch.equal(layer.parametrizations.weight[0].scale, scale)  # fixed when prepared
    if dtype != torch.bfloat16:  # which numpy lacks
        assert np.array_equal(dkm.palettes(frozen)["weight"].decode(), weight.detach().numpy())


def test_training_recovers_better_than_its_start_and_reports_itself():
    model = dkm.prepare(small_net(), SCALED).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(10):
        loss = model(images()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    status = dkm.status(model)["stem.weight"]
    assert 0 < status.variance < 1  # in units of the scale
    assert 0 < status.soft_hard_gap < 1


def test_a_killed_run_goes_on_bit_for_bit(tmp_path):
    def layer(seed):
        torch.manual_seed(seed)
        return dkm.prepare(nn.Linear(16, 4), SCALED)

    whole, resumed = layer(0), layer(9)
    fit_quietly(whole, batches(), epochs=2)
    options = {"epochs": 2, "checkpoint": tmp_path / "run.pt", "every": 1}
    with pytest.raises(Killed):
        fit_quietly(layer(0), batches(), after_step=kill_at(5), **options)
    fit_quietly(resumed, batches(), **options)
    assert "parametrizations.weight.0.scale" in whole.state_dict()
    assert_same(resumed.state_dict(), whole.state_dict())


def test_a_checkpoint_holds_the_scale(tmp_path):
    path = tmp_path / "m.safetensors"
    frozen = dkm.palettize(TiedNet(), SCALED)
    dkm.save(frozen, path)
    loaded = dkm.load(path, TiedNet())
    assert dkm.palettes(loaded) == dkm.palettes(frozen) == dkm.read_palettes(path)
    ids = torch.arange(20).reshape(2, 10)
    assert torch.equal(loaded(ids), frozen(ids))
    assert dkm.size_breakdown(path).by_kind()["lut"] == 4 * (2 * 8 + 20 + 12)


def test_a_damaged_scale_is_one_line(tmp_path):
    path = tmp_path / "m.safetensors"
    dkm.save(dkm.palettize(small_net(), SCALED), path)
    tensors = load_file(path)
    metadata = {"dkm_deploy.palettes": _metadata(path)}
    tensors["head.weight.scale"] = torch.ones(4, 1)
    save_file(tensors, path, metadata)
    with pytest.raises(dkm.DkmError, match=r"damaged palettes: a scale of shape \(4, 1\)"):
        dkm.load(path, SmallNet())


def _metadata(path):
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.metadata()["dkm_deploy.palettes"]


def test_core_ml_refuses_it_before_training_and_at_convert(tmp_path):
    message = (
        "head.weight: target coreml cannot hold it: per_channel_scale=True takes a LUT .* dense"
    )
    rules = [dkm.Rule("head.*", dkm.PaletteSpec(8, per_channel_scale=True))]
    recipe = dkm.Recipe(dkm.PaletteSpec(2), rules)
    with pytest.raises(dkm.DkmError, match=message):
        dkm.prepare(small_net(), recipe, targets=("onnx", "coreml"))
    frozen = dkm.palettize(small_net(), recipe, targets=("onnx",))
    with pytest.raises(dkm.DkmError, match=message):
        dkm.convert(frozen, images(), tmp_path / "m.mlpackage")
    assert not list(tmp_path.iterdir())
