"""Parametrizations registered above palettes: kept when a model is frozen, and in files."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

import dkm_deploy as dkm

RECIPE = dkm.Recipe.uniform(3, per_channel_scale=True)


class Masked(nn.Module):
    """A mask, and a factor that goes by the name of a palette's own."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", (torch.rand_like(weight) > 0.5).float())
        self.register_buffer("scale", torch.full((len(weight), 1), 1.5))

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask * self.scale


class LowRank(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        outputs, inputs = weight.shape
        self.down = nn.Parameter(torch.randn(2, inputs))
        self.up = nn.Parameter(0.1 * torch.randn(outputs, 2))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 8), nn.Linear(8, 4)).eval()


def with_more(model: nn.Module) -> nn.Module:
    parametrize.register_parametrization(model[0], "weight", Masked(model[0].weight))
    parametrize.register_parametrization(model[2], "weight", LowRank(model[2].weight))
    return model


X = torch.randn(6, 12, generator=torch.Generator().manual_seed(1))


def trained() -> nn.Module:
    model = with_more(dkm.prepare(net(), RECIPE)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        model(X).square().mean().backward()
        optimizer.step()
        dkm.step(model)
    return model.eval()


def test_freezing_keeps_them():
    model = trained()
    frozen = dkm.freeze(model)
    assert torch.equal(frozen(X), model(X))
    assert (frozen(X) - dkm.freeze(dkm.prepare(net(), RECIPE))(X)).norm() > 0.1
    assert list(dkm.palettes(frozen)) == ["0.weight", "2.weight", "3.weight"]
    with torch.no_grad():
        model[2].parametrizations.weight[1].up.zero_()
    assert not torch.equal(frozen(X), model(X))  # nothing is shared
    soft = dkm.soft_copy(trained())
    assert isinstance(soft[0].weight, nn.Parameter)
    torch.testing.assert_close(soft(X), trained().train()(X))


@pytest.mark.parametrize("suffix", ["onnx", "mlpackage"])
def test_files_compute_them(tmp_path, suffix):
    frozen = with_more(dkm.palettize(net(), RECIPE))
    options = {"minimum_deployment_target": "iOS26"} if suffix == "mlpackage" else {}
    file = dkm.convert(frozen, X, tmp_path / f"m.{suffix}", **options)
    assert dkm.read_palettes(file).keys() == dkm.palettes(frozen).keys()
    assert dkm.validate([file], reference=frozen, inputs=X)


def test_a_checkpoint_does_not_hold_them(tmp_path):
    with pytest.raises(dkm.DkmError, match=r"0\.weight: Masked is registered above its palette"):
        dkm.save(with_more(dkm.palettize(net(), RECIPE)), tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_norm_on_a_dense_layer_of_a_frozen_model(tmp_path):
    recipe = dkm.Recipe(dkm.PaletteSpec(3), [dkm.Rule("0.*", skip=True)])
    frozen = dkm.palettize(net(), recipe)
    expected = frozen(X)
    parametrizations.weight_norm(frozen[0])
    file = dkm.convert(frozen, X, tmp_path / "m.onnx")
    assert dkm.validate([file], reference=frozen, inputs=X)
    dkm.save(frozen, tmp_path / "m.safetensors")
    torch.testing.assert_close(dkm.load(tmp_path / "m.safetensors", net())(X), expected)
