"""Outputs that are whole numbers are equal or not, however large they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.parity.repeatability import outputs_repeat
from dkm_deploy.parity.slice_comparison import is_close, judge_outputs
from dkm_deploy.parity.trial_run import DiffersError, trial_run
from tests.models import images, small_net

_LARGE = 2**24


class _Ids(nn.Module):
    """Looks up a number, a truth value and a byte for the class of an image."""

    def __init__(self, first: int, byte: int = 0) -> None:
        super().__init__()
        self.net = small_net()
        self.register_buffer("ids", first + 2 * torch.arange(64))
        self.register_buffer("bytes", torch.full((64,), byte, dtype=torch.uint8))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.net(x)
        found = logits.argmax(1)
        own = self.bytes[found]
        return {"logits": logits, "id": self.ids[found], "even": own % 2 == 0, "byte": own}


def _model(*args: int) -> nn.Module:
    return dkm.palettize(_Ids(*args), dkm.Recipe(default=dkm.PaletteSpec(bits=4)))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "model.onnx"
    return dkm.convert(_model(_LARGE), images(2), path).path


def _parity(report):
    return next(check for check in report.models[-1].checks if check.name == "parity")


def test_the_right_file_passes_beside_its_model_and_a_golden_bundle(file, tmp_path):
    dkm.write_golden(tmp_path / "golden", reference=_model(_LARGE), inputs=images(4))

    assert dkm.validate(file, reference=_model(_LARGE), inputs=images(4))
    report = dkm.validate_golden(file, tmp_path / "golden")
    assert report
    assert {"id", "even", "byte"} <= set(report.models[-1].errors)


@pytest.mark.parametrize(("changed", "output"), [((_LARGE + 1,), "id"), ((_LARGE, 1), "even")])
def test_another_number_fails_by_validate_and_by_a_golden_bundle(file, tmp_path, changed, output):
    dkm.write_golden(tmp_path / "golden", reference=_model(*changed), inputs=images(4))

    for report in (
        dkm.validate(file, reference=_model(*changed), inputs=images(4)),
        dkm.validate_golden(file, tmp_path / "golden"),
    ):
        assert _parity(report).status == "failed"
        assert f"{output}: relative error" in _parity(report).reason


def test_a_file_just_written_with_another_number_is_refused(file):
    with pytest.raises(DiffersError, match="'id': share of different elements 1.00"):
        trial_run(file, _model(_LARGE + 1), images(2), half_weights=False)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.int32])
def test_whole_numbers_are_near_none_but_themselves(dtype):
    ids = np.full(100, np.iinfo(dtype).max - 1, dtype)
    other = ids + dtype(1)

    assert is_close(ids, ids, "float16")
    assert not is_close(ids, other, "float16")
    assert not outputs_repeat({"id": ids}, {"id": other})
    figure = judge_outputs({"id": other}, {"id": ids}, None, "float16")["id"].figures[0]
    assert (figure.what, figure.value) == ("share of different elements", 1)
