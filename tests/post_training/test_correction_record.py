"""What correct_outputs did is told by the model that it gave."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import dkm_deploy as dkm


@pytest.fixture(scope="module")
def corrected():
    model = nn.Linear(8, 4)
    return dkm.correct_outputs(dkm.palettize(model, 2), model, torch.randn(32, 8))


def test_the_record_goes_with_copies(corrected):
    done = dkm.Correction.of(corrected)
    assert [layer.corrected for layer in done.layers] == [("weight", "bias")]
    assert done.error_after < done.error_before
    assert dkm.Correction.of(copy.deepcopy(corrected)) == done
    assert dkm.Correction.of(nn.DataParallel(corrected)) == done


def test_a_model_that_is_corrected_again_tells_of_the_last_time(corrected):
    model, before = dkm.dense(corrected), dkm.Correction.of(corrected)
    again = dkm.correct_outputs(corrected, model, torch.randn(32, 8))
    assert dkm.Correction.of(again).error_before < 1e-6 < before.error_before
    assert dkm.Correction.of(corrected) == before


def test_others_have_none(corrected, tmp_path):
    dkm.save(corrected, tmp_path / "m.safetensors")
    loaded = dkm.load(tmp_path / "m.safetensors", nn.Linear(8, 4))
    for model in (loaded, dkm.palettize(nn.Linear(8, 4), 2), nn.Linear(8, 4)):
        with pytest.raises(dkm.DkmError, match=r"no record of a correction; give what dkm\.corr"):
            dkm.Correction.of(model)
    with pytest.raises(dkm.DkmError, match="corrected is the class Linear; give an instance"):
        dkm.Correction.of(nn.Linear)
