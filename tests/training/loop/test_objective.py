"""Labels that cross entropy does not take."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.training.loop.objective import Objective

SCORES = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(6) % 4
CROSS_ENTROPY = Objective(None, None, 1.0, 1.0, -1)


@pytest.mark.parametrize(
    "labels",
    [LABELS[:, None], LABELS + 1, LABELS - 1, LABELS.float(), LABELS > 1, LABELS[:5], ["a"] * 6],
)
def test_they_are_refused_in_one_line(labels):
    with pytest.raises(dkm.DkmError, match=r"scores \(6, 4\) .*: give int64 class numbers"):
        CROSS_ENTROPY.on_labels(SCORES, labels)
    assert CROSS_ENTROPY.on_labels(SCORES, LABELS) > 0


def test_where_every_label_is_left_out_nothing_is_measured():
    model = nn.Linear(3, 4).eval()
    batch = (torch.randn(6, 3), LABELS * 0 - 100)
    with pytest.raises(dkm.DkmError, match="the loss is nan in batch 1; check its labels"):
        dkm.palettize(model, dkm.Recipe.uniform(1), "sensitive", [batch])
