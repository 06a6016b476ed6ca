"""A metric that cannot tell right from wrong guides no search."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import dkm_deploy as dkm
from dkm_deploy.model.metric import accuracy
from dkm_deploy.post_training.output_loss import OutputLoss

LABELS = torch.arange(12) % 3
OUTPUTS = [[torch.eye(3)[LABELS]]]


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (LABELS + 1, "subtract 1"),
        (LABELS[:, None], r"labels\.squeeze"),
        ((LABELS + 1) % 3, "no more than guessing"),
        (LABELS * float("nan"), "NaN"),
    ],
)
def test_accuracy_takes_labels_that_fit(labels, reason):
    with pytest.raises(dkm.DkmError, match=reason):
        OutputLoss(OUTPUTS, [labels], accuracy)
    assert OutputLoss(OUTPUTS, [LABELS], accuracy).baseline == 100


def test_labels_that_make_no_array():
    with pytest.raises(
        dkm.DkmError, match="the labels of the batches cannot be joined to one array"
    ):
        OutputLoss(OUTPUTS, [["cat"] * 12], accuracy)
    with pytest.raises(
        dkm.DkmError, match="the labels of the batches cannot be joined to one array"
    ):
        OutputLoss(OUTPUTS * 2, [LABELS, LABELS[:, None]], accuracy)


def test_a_metric_that_writes_or_fails_does_no_harm():
    def writes(output, labels):
        right = float((output.argmax(1) == labels).mean())
        output[:], labels[:] = 0, 0
        return right

    found = OutputLoss(OUTPUTS, [LABELS], writes)
    assert found.loss(OUTPUTS) == 0
    assert found.loss([[OUTPUTS[0][0].roll(1, 1)]]) == 1
    with pytest.raises(dkm.DkmError, match="cannot be computed: KeyError"):
        OutputLoss(OUTPUTS, [LABELS], lambda y, t: {}["f1"])
    with pytest.raises(dkm.DkmError, match="it gave a ndarray, not a number"):
        OutputLoss(OUTPUTS, [LABELS], lambda y, t: np.zeros(2))
