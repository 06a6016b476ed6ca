"""BatchNorm folded into the layer before it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import dkm_deploy as dkm
from tests.models import images, small_net


def _norm(kind, channels):
    norm = kind(channels)
    for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        nn.init.uniform_(values, 0.5, 1.5)
    return norm


LAYERS = {
    "linear": (lambda: (nn.Linear(8, 6), _norm(nn.BatchNorm1d, 6)), (4, 8)),
    "conv 1d": (lambda: (nn.Conv1d(8, 6, 3), _norm(nn.BatchNorm1d, 6)), (2, 8, 9)),
    "no bias": (lambda: (nn.Conv2d(8, 6, 3, bias=False), _norm(nn.BatchNorm2d, 6)), (2, 8, 5, 5)),
    "same": (lambda: (nn.Conv2d(8, 6, 3, padding="same"), _norm(nn.BatchNorm2d, 6)), (2, 8, 5, 5)),
    "grouped": (lambda: (nn.Conv2d(8, 6, 3, groups=2), _norm(nn.BatchNorm2d, 6)), (2, 8, 5, 5)),
    "transposed": (
        lambda: (nn.ConvTranspose2d(8, 6, 3, groups=2), _norm(nn.BatchNorm2d, 6)),
        (2, 8, 5, 5),
    ),
    "conv 3d": (lambda: (nn.Conv3d(4, 6, 3), _norm(nn.BatchNorm3d, 6)), (1, 4, 5, 5, 5)),
    "plain norm": (
        lambda: (nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6, affine=False)),
        (2, 8, 5, 5),
    ),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer(layer):
    torch.manual_seed(0)
    make, shape = LAYERS[layer]
    model, x = nn.Sequential(*make()).eval(), torch.randn(shape)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folded = dkm.fold_batch_norm(model, x)
    assert isinstance(folded[1], nn.Identity)
    torch.testing.assert_close(folded(x), model(x), rtol=1e-5, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_folded_model_trains_with_palettes():
    x = images()
    folded = dkm.fold_batch_norm(small_net(), x)
    recipe = dkm.Recipe(dkm.PaletteSpec(2), [dkm.Rule("head.*", skip=True)])
    dkm.prepare(folded.train(), recipe)(x).sum().backward()
    assert folded.stem.bias.grad is not None


class Skips(nn.Module):
    """BatchNorms that no one layer feeds alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 1), _norm(nn.BatchNorm2d, 4)
        self.linear, self.last = nn.Linear(8, 8), _norm(nn.BatchNorm1d, 4)
        self.twice, self.shared = nn.Conv2d(4, 4, 1), _norm(nn.BatchNorm2d, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y = y + self.norm(y)
        y = self.shared(self.twice(self.shared(self.twice(y))))
        return self.last(self.linear(y[:, :, 0]))


def test_what_cannot_be_folded_is_left():
    model, x = Skips().eval(), torch.randn(2, 4, 3, 8)
    folded = dkm.fold_batch_norm(model, x)
    assert not any(isinstance(module, nn.Identity) for module in folded.modules())
    torch.testing.assert_close(folded(x), model(x), rtol=0, atol=0)


def test_a_model_in_training_mode_is_folded_as_it_is_in_eval_mode():
    expected = dkm.fold_batch_norm(small_net(), images())
    folded = dkm.fold_batch_norm(small_net().train(), images())
    assert torch.equal(folded(images()), expected(images()))
