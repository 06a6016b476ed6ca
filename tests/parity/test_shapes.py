"""Parity of outputs that have no dimension of samples: a loss, scores by time and then sample."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dkm_deploy as dkm
from dkm_deploy.parity.slice_comparison import is_close


class Sums(nn.Module):
    """A number for all samples, and rows of another count: (n, 16) to () and (8, n)."""

    gain = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.fc(x)
        return self.gain * scores.square().sum(), scores.T * (1.0 if self.gain == 1.0 else 1.001)


INPUTS = torch.randn(5, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def frozen():
    torch.manual_seed(0)
    return dkm.palettize(Sums(), 4)


@pytest.mark.parametrize("suffix", [".onnx", ".mlpackage"])
def test_they_are_judged_by_the_models_noise(frozen, tmp_path, suffix):
    right = dkm.convert(frozen, INPUTS, tmp_path / f"right{suffix}")
    golden = tmp_path / "golden"
    dkm.write_golden(golden, reference=frozen, inputs=INPUTS)
    wrong = copy.deepcopy(frozen)
    wrong.gain = 1.02
    wrong = dkm.convert(wrong, INPUTS, tmp_path / f"wrong{suffix}")
    for report in (
        dkm.validate([right, wrong], reference=frozen, inputs=INPUTS),
        dkm.validate_golden([right, wrong], golden),
    ):
        passed, missed = ({c.name: c for c in row.checks}["parity"] for row in report.files)
        assert (passed.status, missed.status) == ("passed", "failed"), passed.reason
        assert "the model's own float" in passed.reason
        assert "output_0" in missed.reason


def test_a_number_is_close_to_itself_alone():
    assert is_close(np.float32(3), np.float32(3), "float32")
    assert not is_close(np.float32(3.1), np.float32(3), "float32")
