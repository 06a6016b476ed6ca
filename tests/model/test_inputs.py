"""Inputs that are nested, None or numbers, in files and in golden bundles; bfloat16 and arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.model.inputs import arguments, arrays_in


class Mixed(nn.Module):
    """Takes and gives tensors among others."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(16, 16)

    def forward(self, pair, batch, mask=None, times: int = 1, *, flag: bool = True):
        y = self.fc(pair[0] + pair[1]) * times + batch["Left side"]
        y = y if mask is None else y * mask
        return {"y": y if flag else -y, "none": None, "nested": (y + 1, "text"), "three": 3}


X = torch.linspace(-1, 1, 64).reshape(4, 16)
ARGUMENTS = {
    "positional": ([X, X * 2], {"Left side": X * 3}, None, 2),
    "by name": {"batch": {"Left side": X * 3}, "pair": (X, X * 2), "times": 2, "flag": False},
}


@pytest.mark.parametrize("kind", ["onnx", "mlpackage", "ort"])
@pytest.mark.parametrize("how", ARGUMENTS)
def test_what_is_nested_or_no_tensor_goes_to_files(tmp_path, kind, how):
    frozen = dkm.palettize(Mixed(), 4)
    file = dkm.convert(frozen, ARGUMENTS[how], tmp_path / f"m.{kind}").path
    report = dkm.validate(file, reference=frozen, inputs=ARGUMENTS[how], require=("parity",))
    assert report.failed == ()
    assert report
    dkm.write_golden(tmp_path / "golden", reference=frozen, inputs=ARGUMENTS[how])
    assert dkm.validate_golden(str(file), tmp_path / "golden", require=("parity",))


def test_names_are_those_of_a_program():
    found = arrays_in(*arguments(ARGUMENTS["by name"]))
    assert list(found) == ["batch_Left side", "pair_0", "pair_1"]


@pytest.mark.parametrize(
    "array",
    [np.arange(6.0, dtype="f4"), np.arange(6)[::-1], np.arange(6, dtype=">i4"), np.float32(2)],
)
def test_arrays_of_numbers_are_tensors(array):
    (given,), _ = arguments((array,))
    assert np.array_equal(given, array)
    assert isinstance(given, (torch.Tensor, float))


def test_an_array_keeps_its_values_where_it_may_not_be_written():
    array = np.arange(3.0)
    array.flags.writeable = False
    (given,), _ = arguments(array)
    given += 1
    assert array.tolist() == [0, 1, 2]


@pytest.mark.parametrize("kind", ["onnx", "mlpackage"])
def test_a_model_of_bfloat16_is_written_in_float32(tmp_path, kind):
    torch.manual_seed(0)
    frozen = dkm.palettize(nn.Sequential(nn.Linear(16, 16), nn.ReLU()).bfloat16(), 4)
    inputs = X.bfloat16()
    artifact = dkm.convert(frozen, inputs, tmp_path / f"m.{kind}")
    assert artifact.notes[0].startswith("bfloat16 is written as float32")
    assert dkm.validate(artifact, reference=frozen, inputs=inputs, require=("parity",))
    assert frozen[0].weight.dtype is torch.bfloat16


def test_a_model_that_gives_no_tensor_is_refused():
    class Talking(nn.Linear):
        def forward(self, x):
            return "hello"

    with pytest.raises(dkm.DkmError, match="gives a str without any tensor"):
        dkm.write_golden("none", reference=dkm.palettize(Talking(8, 8), 2), inputs=X[:, :8])
