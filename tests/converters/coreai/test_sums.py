"""Sums and differences with a factor in Core AI, which coreai-torch drops."""

from __future__ import annotations

import torch
from torch import nn

import dkm_deploy as dkm
from tests.converters.coreai.assets import extra, outputs, relative_error

extra()


class Sums(nn.Module):
    def forward(self, x, y):
        made = {"number": torch.add(x, 3, alpha=2), "from_number": torch.rsub(x, 3, alpha=2)}
        for place, alpha in enumerate((1, 2, -0.5)):
            made[f"sum_{place}"] = torch.add(x, y, alpha=alpha)
            made[f"difference_{place}"] = torch.sub(x, y, alpha=alpha)
            made[f"reverse_{place}"] = torch.rsub(x, y, alpha=alpha)
        return made


def test_the_factor_counts(tmp_path):
    x, y = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    artifact = dkm.convert(Sums().eval(), (x, y), tmp_path / "m.aimodel")
    found = outputs(artifact.path, x, y)
    for name, expected in Sums()(x, y).items():
        assert relative_error(found[name], expected) < 1e-6, name
